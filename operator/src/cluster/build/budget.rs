//! How many pods of a role may be evicted at a time: one. A pod that does not serve anyway never
//! stands in the way of a node that is to be emptied.

use serde_json::json;

use super::{Object, Plan};
use crate::names;

pub(super) fn all(plan: &Plan<'_>) -> Vec<Object> {
    let budget = |role| {
        let body = json!({ "spec": {
            "maxUnavailable": 1,
            "selector": plan.selector(role),
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }});
        plan.role_object("policy/v1", "PodDisruptionBudget", role, body)
    };
    names::ROLES.into_iter().map(budget).collect()
}
