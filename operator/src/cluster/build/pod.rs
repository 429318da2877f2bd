//! The pods: one container of the one image. It needs no permissions on its node.

use basalt_api::ValidatedStorage;
use basalt_api::common::{PodTemplate, Resources};
use basalt_api::role_file::{MACHINE_VARIABLE, PortName, RoleName};
use serde_json::{Value, json};

use super::config::{HDFS_CONF_PATH, MEMBER_PATH, SHARED_PATH, file_of};
use super::{Plan, access, merge};
use crate::names;

/// The volume claim of a coordinator member.
pub(super) const MEMBER_VOLUME: &str = "member";
/// The user and group of every process.
const USER: u32 = 65_532;
/// How long the kubelet waits for a probe's answer. Longer than a probe period: a machine short of
/// CPU is slow, and a restart would not make it faster.
const PROBE_TIMEOUT_S: u64 = 5;
/// How much longer than a process may take to stop the kubelet waits.
const GRACE_MARGIN_S: u64 = 5;
/// How long a pod stays bound to a node that does not respond.
const LOST_NODE_TOLERATION_S: u64 = 10;

pub(super) fn template(plan: &Plan<'_>, role: RoleName, config_hash: &str) -> Value {
    let image = &plan.cluster.spec.image;
    let mut template = json!({
        "metadata": {
            "labels": names::role_labels(&plan.cluster.name, role),
            "annotations": { (names::CONFIG_ANNOTATION): config_hash },
        },
        "spec": {
            "serviceAccountName": names::of_role(&plan.cluster.name, role),
            "automountServiceAccountToken": access::has_token(role),
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": grace_s(plan),
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "affinity": { "podAntiAffinity": anti_affinity(plan, role) },
            "topologySpreadConstraints": [{
                "maxSkew": 1,
                "topologyKey": plan.cluster.spec.placement.rack_label,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": plan.selector(role),
            }],
            "containers": [container(plan, role)],
            "volumes": volumes(plan, role),
        },
    });
    if role != RoleName::Coordinator {
        let toleration = |taint: &str| {
            json!({
                "key": format!("node.kubernetes.io/{taint}"),
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": LOST_NODE_TOLERATION_S,
            })
        };
        template["spec"]["tolerations"] =
            json!([toleration("not-ready"), toleration("unreachable")]);
    }
    if !image.pull_secrets.is_empty() {
        let secrets: Vec<_> =
            image.pull_secrets.iter().map(|name| json!({ "name": name })).collect();
        template["spec"]["imagePullSecrets"] = json!(secrets);
    }
    if let Some(PodTemplate(over)) = written_template(plan, role) {
        merge::merge(&mut template, &Value::Object(over.clone()));
    }
    template
}

fn container(plan: &Plan<'_>, role: RoleName) -> Value {
    let image = &plan.cluster.spec.image;
    let tag = image.tag.as_deref().unwrap_or(plan.default_tag);
    let timers = &plan.cluster.timers;
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let ports = PortName::of_role(role).iter().filter(|(port, _)| *port != PortName::Web);
    let mut ports: Vec<_> = ports
        .map(|(port, number)| json!({ "name": port, "containerPort": number, "protocol": "TCP" }))
        .collect();
    ports.push(json!({
        "name": "health", "containerPort": names::HEALTH_PORT, "protocol": "TCP",
    }));
    let probe = |path: &str, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "health" },
            "periodSeconds": timers.probe_period.as_secs(),
            "timeoutSeconds": PROBE_TIMEOUT_S,
            "failureThreshold": failures,
        })
    };
    let mut environment = vec![
        json!({ "name": "POD_NAME", "valueFrom": field("metadata.name") }),
        json!({ "name": "POD_UID", "valueFrom": field("metadata.uid") }),
        json!({ "name": "POD_IP", "valueFrom": field("status.podIP") }),
    ];
    if role != RoleName::Coordinator && matches!(plan.cluster.storage, ValidatedStorage::Hdfs(_)) {
        // A process finds the DataNode on its machine by this address, which is not the pod's own.
        environment.push(json!({ "name": MACHINE_VARIABLE, "valueFrom": field("status.hostIP") }));
    }
    json!({
        "name": names::CONTAINER,
        "image": format!("{}:{tag}", image.repository),
        "imagePullPolicy": image.pull_policy,
        "args": [
            role.subcommand(),
            "--config", format!("/etc/basalt/{}", file_of(role)),
            "--instance", "$(POD_UID)",
            "--termination-log", "/dev/termination-log",
            "--health", format!("0.0.0.0:{}", names::HEALTH_PORT),
        ],
        "env": environment,
        "ports": ports,
        "readinessProbe": probe("/readyz", 1),
        "livenessProbe": probe("/livez", timers.liveness_failures),
        "resources": resources(plan, role),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": volume_mounts(plan, role),
    })
}

fn volume_mounts(plan: &Plan<'_>, role: RoleName) -> Value {
    let data = match (role, &plan.cluster.storage) {
        (RoleName::Coordinator, _) => json!({ "name": MEMBER_VOLUME, "mountPath": MEMBER_PATH }),
        (_, ValidatedStorage::Claim(_)) => json!({ "name": "shared", "mountPath": SHARED_PATH }),
        (_, ValidatedStorage::Hdfs(_)) => {
            json!({ "name": "hdfs", "mountPath": HDFS_CONF_PATH, "readOnly": true })
        }
    };
    json!([{ "name": "config", "mountPath": "/etc/basalt", "readOnly": true }, data])
}

fn volumes(plan: &Plan<'_>, role: RoleName) -> Value {
    let name = names::of_role(&plan.cluster.name, role);
    let mut volumes = vec![json!({ "name": "config", "configMap": { "name": name } })];
    if role != RoleName::Coordinator {
        volumes.push(match &plan.cluster.storage {
            ValidatedStorage::Claim(claim) => {
                json!({ "name": "shared", "persistentVolumeClaim": { "claimName": claim } })
            }
            ValidatedStorage::Hdfs(hdfs) => {
                json!({ "name": "hdfs", "configMap": { "name": hdfs.config_map } })
            }
        });
    }
    json!(volumes)
}

/// Puts pods of one role on separate nodes if there are enough nodes. After that, separates masters
/// and region servers.
fn anti_affinity(plan: &Plan<'_>, role: RoleName) -> Value {
    let apart_from = |other: RoleName, weight: u32| {
        json!({
            "weight": weight,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": plan.selector(other),
            },
        })
    };
    let mut terms = vec![apart_from(role, 100)];
    match role {
        RoleName::Master => terms.push(apart_from(RoleName::RegionServer, 10)),
        RoleName::RegionServer => terms.push(apart_from(RoleName::Master, 10)),
        RoleName::Coordinator | RoleName::Idle => {}
    }
    json!({ "preferredDuringSchedulingIgnoredDuringExecution": terms })
}

/// The resources of the container: the declared ones, or else the needs of a small cluster.
fn resources(plan: &Plan<'_>, role: RoleName) -> Value {
    let spec = &plan.cluster.spec;
    let (written, memory, memory_max): (&Resources, _, _) = match role {
        RoleName::Coordinator => (&spec.coordinator.resources, "128Mi", "1Gi"),
        RoleName::Master => (&spec.masters.resources, "128Mi", "1Gi"),
        _ => (&spec.region_servers.resources, "768Mi", "2Gi"),
    };
    if *written != Resources::default() {
        return json!(written);
    }
    json!({
        "requests": { "cpu": "100m", "memory": memory },
        "limits": { "memory": memory_max },
    })
}

fn written_template<'a>(plan: &Plan<'a>, role: RoleName) -> Option<&'a PodTemplate> {
    let spec = &plan.cluster.spec;
    match role {
        RoleName::Coordinator => spec.coordinator.pod_template.as_ref(),
        RoleName::Master => spec.masters.pod_template.as_ref(),
        _ => spec.region_servers.pod_template.as_ref(),
    }
}

fn grace_s(plan: &Plan<'_>) -> u64 {
    plan.cluster.timers.termination_grace.as_secs() + GRACE_MARGIN_S
}
