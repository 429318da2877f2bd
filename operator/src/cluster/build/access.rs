//! Who the pods are to the API server: an account a role, and none has a right or a token.

use serde_json::json;

use super::{Object, Plan};
use crate::names;

pub(super) fn service_accounts(plan: &Plan<'_>) -> Vec<Object> {
    let account = |role| {
        let body = json!({ "automountServiceAccountToken": false });
        plan.role_object("v1", "ServiceAccount", role, body)
    };
    names::ROLES.into_iter().map(account).collect()
}
