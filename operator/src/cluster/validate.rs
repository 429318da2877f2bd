//! Checks of a cluster that only Kubernetes makes possible, in addition to the common checks.

use basalt_api::cluster::BasaltCluster;
use basalt_api::common::Quantity;
use basalt_api::role_file::RoleName;
use basalt_api::{Problem, ValidatedCluster};

use super::observe::Observed;

/// The proof that `cluster` can be run, or all its problems.
pub(super) fn validate(
    cluster: &BasaltCluster,
    observed: &Observed,
) -> Result<ValidatedCluster, Vec<Problem>> {
    let (validated, mut problems) = match basalt_api::validate(cluster, &[]) {
        Ok(validated) => (Some(validated), Vec::new()),
        Err(problems) => (None, problems),
    };
    let name = cluster.metadata.name.clone().unwrap_or_default();
    let mut add = |field: &str, reason: String| {
        let resource = format!("BasaltCluster {name}");
        problems.push(Problem { resource, field: field.to_owned(), reason });
    };
    let spec = &cluster.spec;
    if let Some(running) = observed.replicas(RoleName::Coordinator)
        && running != spec.coordinator.replicas
    {
        add(
            "spec.coordinator.replicas",
            format!(
                "{}; the cluster was created with {running} members, and changing their number \
                 does not work yet: write {running}",
                spec.coordinator.replicas
            ),
        );
    }
    if let Some(made_for) = &observed.member_size
        && Quantity::amount(made_for) != Quantity::amount(&spec.coordinator.storage.size.0)
    {
        add(
            "spec.coordinator.storage.size",
            format!(
                "{}; the members' claims were created with {made_for}, and the claims of a \
                 StatefulSet cannot be changed: write {made_for}, and grow the claims themselves",
                spec.coordinator.storage.size.0
            ),
        );
    }
    if let Some(owner) = &observed.storage_taken_by {
        let (field, what) = match spec.storage.shared {
            Some(_) => ("spec.storage.shared.claim", "claim"),
            None => ("spec.storage.hdfs.root", "folder"),
        };
        let reason =
            format!("the older BasaltCluster {owner} stores its data there; use another {what}");
        add(field, reason);
    }
    if let Some(other) = &observed.unreadable_before {
        let field = if spec.storage.hdfs.is_some() { "hdfs.root" } else { "shared.claim" };
        let reason = format!(
            "BasaltCluster {other} is older, and its storage cannot be read: it may be the same \
             place; correct that cluster first"
        );
        add(&format!("spec.storage.{field}"), reason);
    }
    if spec.metrics.pod_monitor && !observed.has_pod_monitors {
        add(
            "spec.metrics.podMonitor",
            "this Kubernetes cluster has no monitoring.coreos.com/v1 PodMonitor; install the \
             Prometheus operator, or write false"
                .to_owned(),
        );
    }
    match validated {
        Some(validated) if problems.is_empty() => Ok(validated),
        _ => Err(problems),
    }
}
