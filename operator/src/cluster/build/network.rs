//! Who may connect to which port of a role: clients to the client ports, processes of the cluster
//! to the peer ports, the operator to the ports that it queries. All other ports are closed.

use basalt_api::role_file::{PortName, RoleName};
use serde_json::{Value, json};

use super::{Object, Plan};
use crate::names;

pub(super) fn policies(plan: &Plan<'_>) -> Vec<Object> {
    names::ROLES.into_iter().map(|role| policy(plan, role)).collect()
}

fn policy(plan: &Plan<'_>, role: RoleName) -> Object {
    let ports = PortName::of_role(role).iter();
    let mut ingress: Vec<Value> = ports
        .filter(|(port, _)| *port != PortName::Web)
        .map(|(port, number)| {
            let mut rule = json!({ "ports": [{ "port": number, "protocol": "TCP" }] });
            if *port == PortName::Peer {
                rule["from"] = Value::Array(peers_of(plan, role));
            }
            rule
        })
        .collect();
    // The kubelet's port. The source address of the kubelet depends on the network plugin.
    ingress.push(json!({ "ports": [{ "port": names::HEALTH_PORT, "protocol": "TCP" }] }));
    let body = json!({ "spec": {
        "podSelector": plan.selector(role),
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }});
    plan.role_object("networking.k8s.io/v1", "NetworkPolicy", role, body)
}

/// Who connects to the peer port of `role`.
fn peers_of(plan: &Plan<'_>, role: RoleName) -> Vec<Value> {
    let roles: &[RoleName] = match role {
        RoleName::Coordinator => &[RoleName::Coordinator],
        RoleName::Master | RoleName::RegionServer => &[RoleName::Master, RoleName::RegionServer],
        RoleName::Idle => &[],
    };
    let mut peers: Vec<Value> =
        roles.iter().map(|role| json!({ "podSelector": plan.selector(*role) })).collect();
    if role == RoleName::Master {
        // The operator reports to the master what it learnt from the kubelet, and asks it for the
        // recoveries.
        peers.push(json!({
            "namespaceSelector": {},
            "podSelector": { "matchLabels": { "app.kubernetes.io/name": names::FIELD_MANAGER } },
        }));
    }
    peers
}
