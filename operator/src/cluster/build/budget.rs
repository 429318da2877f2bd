//! How many pods of a role may be evicted at a time, by the operator and by whoever drains a node:
//! one, and of region servers as many as `maxUnavailable` says. A pod that does not serve anyway
//! never stands in the way of a node that is to be emptied.

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
