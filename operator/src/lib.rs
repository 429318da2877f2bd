//! The Kubernetes operator: reconciles `BasaltCluster` and `BasaltTable`.
//!
//! What comes here: `cluster/` (observe, validate, build, apply, status) and `table/`, driven by
//! kube's controllers. The resources themselves, their validation, their timers and their
//! definitions for the API server live in `basalt_api`, which `basalt local` shares.
