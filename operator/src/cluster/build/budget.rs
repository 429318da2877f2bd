//! The disruption budgets: how many pods of a role may be evicted at a time, by the operator or by
//! a node drain. It is one, and for region servers the number in `maxUnavailable`. A pod that does
//! not serve never blocks a node drain.

use basalt_api::role_file::RoleName;
use serde_json::json;

use super::{Object, Plan};
use crate::names;

pub(super) fn all(plan: &Plan<'_>) -> Vec<Object> {
    let budget = |role| {
        let unavailable = match role {
            RoleName::RegionServer => plan.cluster.spec.region_servers.max_unavailable,
            _ => 1,
        };
        let body = json!({ "spec": {
            "maxUnavailable": unavailable,
            "selector": plan.selector(role),
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }});
        plan.role_object("policy/v1", "PodDisruptionBudget", role, body)
    };
    names::ROLES.into_iter().map(budget).collect()
}
