//! The pods' access to the API server: one service account per role. Only the masters' account has
//! permissions and a token. It allows them to hold the Lease that elects the active master, and to
//! label their own pods, so that a Service finds the active master. The operator creates the Lease,
//! so that it is deleted with the cluster and the masters need no permission to create one.

use basalt_api::role_file::RoleName;
use serde_json::json;

use super::{Object, Plan};
use crate::names;

pub(super) fn all(plan: &Plan<'_>) -> Vec<Object> {
    let account = |role| {
        let body = json!({ "automountServiceAccountToken": false });
        plan.role_object("v1", "ServiceAccount", role, body)
    };
    let mut objects: Vec<_> = names::ROLES.into_iter().map(account).collect();
    objects.extend([lease(plan), role(plan), role_binding(plan)]);
    objects
}

/// Whether the pods of `role` get a token.
pub(super) fn has_token(role: RoleName) -> bool {
    role == RoleName::Master
}

/// The Lease. The masters write its contents.
fn lease(plan: &Plan<'_>) -> Object {
    plan.role_object("coordination.k8s.io/v1", "Lease", RoleName::Master, json!({}))
}

fn role(plan: &Plan<'_>) -> Object {
    let masters = 0..plan.cluster.masters;
    let pods: Vec<_> =
        masters.map(|index| names::pod(&plan.cluster.name, RoleName::Master, index)).collect();
    let rules = json!([
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [names::lease(&plan.cluster.name)],
            "verbs": ["get", "update"],
        },
        { "apiGroups": [""], "resources": ["pods"], "resourceNames": pods, "verbs": ["patch"] },
    ]);
    let body = json!({ "rules": rules });
    plan.role_object("rbac.authorization.k8s.io/v1", "Role", RoleName::Master, body)
}

fn role_binding(plan: &Plan<'_>) -> Object {
    let name = names::of_role(&plan.cluster.name, RoleName::Master);
    let body = json!({
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": plan.namespace }],
    });
    plan.role_object("rbac.authorization.k8s.io/v1", "RoleBinding", RoleName::Master, body)
}
