//! The PodMonitor, which makes a Prometheus operator collect the metrics of all pods. Its type is
//! not part of Kubernetes:
//! <https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.PodMonitor>.

use kube::core::GroupVersionKind;
use serde_json::json;

use super::{Object, Plan};
use crate::names;

/// The kind of a PodMonitor.
pub(crate) fn kind() -> GroupVersionKind {
    GroupVersionKind::gvk("monitoring.coreos.com", "v1", "PodMonitor")
}

pub(super) fn pod_monitor(plan: &Plan<'_>) -> Object {
    let body = json!({ "spec": {
        "selector": { "matchLabels": names::cluster_labels(&plan.cluster.name) },
        "podMetricsEndpoints": [{ "port": "health", "path": "/metrics" }],
    }});
    plan.object("monitoring.coreos.com/v1", "PodMonitor", &plan.cluster.name, body)
}
