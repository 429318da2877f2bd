//! The Services: a headless one for each role's pods, one for each coordinator member, one for
//! clients, one for the active master.
//!
//! Processes reach the coordinator members by the addresses of the members' own Services. Such an
//! address stays the same when the pod moves, and no DNS lookup is needed. When a node is lost, the
//! DNS server may be lost with it, exactly when every process looks for the new leader.

use basalt_api::role_file::{ACTIVE_MASTER_LABEL, PortName, RoleName};
use serde_json::{Value, json};

use super::{Object, Plan};
use crate::names;

pub(super) fn all(plan: &Plan<'_>) -> Vec<Object> {
    let mut services: Vec<Object> =
        names::ROLES.into_iter().map(|role| headless(plan, role)).collect();
    services.extend((0..plan.cluster.coordinators).map(|index| of_member(plan, index)));
    services.push(for_clients(plan));
    services.push(for_active_master(plan));
    services
}

fn ports(role: RoleName, of: impl Fn(PortName) -> bool) -> Vec<Value> {
    let named = |port: PortName| match port {
        PortName::Client => "client",
        PortName::Rpc => "rpc",
        PortName::Web => "web",
        PortName::Peer => "peer",
    };
    let ports = PortName::of_role(role).iter();
    let served = ports.filter(|(port, _)| *port != PortName::Web && of(*port));
    served
        .map(|(port, number)| json!({ "name": named(*port), "port": number, "protocol": "TCP" }))
        .collect()
}

fn headless(plan: &Plan<'_>, role: RoleName) -> Object {
    let body = json!({ "spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": names::role_labels(&plan.cluster.name, role),
        "ports": ports(role, |_| true),
    }});
    plan.role_object("v1", "Service", role, body)
}

fn of_member(plan: &Plan<'_>, index: u32) -> Object {
    let name = names::pod(&plan.cluster.name, RoleName::Coordinator, index);
    let mut selector = names::role_labels(&plan.cluster.name, RoleName::Coordinator);
    selector.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    // Members must find each other before any of them is ready.
    let body = json!({ "spec": {
        "publishNotReadyAddresses": true,
        "selector": selector,
        "ports": ports(RoleName::Coordinator, |_| true),
    }});
    let labels = names::role_labels(&plan.cluster.name, RoleName::Coordinator);
    plan.labelled("v1", "Service", &name, body, labels)
}

fn for_clients(plan: &Plan<'_>) -> Object {
    let body = json!({ "spec": {
        "selector": names::role_labels(&plan.cluster.name, RoleName::Coordinator),
        "ports": ports(RoleName::Coordinator, |port| port == PortName::Client),
    }});
    plan.object("v1", "Service", &plan.cluster.name, body)
}

fn for_active_master(plan: &Plan<'_>) -> Object {
    let mut selector = names::role_labels(&plan.cluster.name, RoleName::Master);
    selector.insert(ACTIVE_MASTER_LABEL.to_owned(), "true".to_owned());
    let body = json!({ "spec": {
        "selector": selector,
        "ports": ports(RoleName::Master, |port| port == PortName::Rpc),
    }});
    plan.object("v1", "Service", &format!("{}-active-master", plan.cluster.name), body)
}
