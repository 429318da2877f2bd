//! The Kubernetes operator: reconciles the manifests.
