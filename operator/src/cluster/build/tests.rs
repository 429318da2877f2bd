//! The objects of `examples/cluster.yaml`, compared with a committed file and with the types of
//! Kubernetes.

use std::net::Ipv4Addr;

use basalt_api::Manifests;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

const EXAMPLE: &str = include_str!("../../../../examples/cluster.yaml");

fn built(manifest: &str) -> Vec<Object> {
    let manifests = Manifests::from_yaml("m.yaml", manifest).unwrap();
    let (cluster, tables) = manifests.into_single_cluster("m.yaml").unwrap();
    let cluster = basalt_api::validate(&cluster, &tables).unwrap();
    let addresses: Vec<IpAddr> =
        (1..=3).map(|last| IpAddr::V4(Ipv4Addr::new(10, 96, 0, last))).collect();
    let plan = Plan {
        cluster: &cluster,
        namespace: "prod",
        uid: "0a1b",
        default_tag: "1.2.3",
        coordinator_addresses: &addresses,
    };
    [services(&plan), objects(&plan)].concat()
}

fn find<'a>(objects: &'a [Object], kind: &str, name: &str) -> &'a Value {
    &objects.iter().find(|o| o.kind() == kind && o.name() == name).unwrap().0
}

/// Reads `object` as a `T` and converts it back. Fields that the type does not know are lost.
fn read_back<T: DeserializeOwned + Serialize>(object: &Object) -> Value {
    let typed: T = serde_json::from_value(object.0.clone()).unwrap();
    serde_json::to_value(typed).unwrap()
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for object in built(EXAMPLE) {
        let known = match object.kind() {
            "StatefulSet" => read_back::<StatefulSet>(&object),
            "Service" => read_back::<Service>(&object),
            "ServiceAccount" => read_back::<ServiceAccount>(&object),
            "ConfigMap" => read_back::<ConfigMap>(&object),
            "PodDisruptionBudget" => read_back::<PodDisruptionBudget>(&object),
            "Lease" => read_back::<Lease>(&object),
            "Role" => read_back::<Role>(&object),
            "RoleBinding" => read_back::<RoleBinding>(&object),
            "NetworkPolicy" => read_back::<NetworkPolicy>(&object),
            other => panic!("{other} is not checked"),
        };
        assert_eq!(known, object.0, "{} {}", object.kind(), object.name());
    }
}

/// `UPDATE_GOLDEN=1 cargo test -p basalt-operator` writes the file again.
#[test]
fn the_example_is_built_as_it_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cluster.yaml");
    let documents: Vec<String> = built(EXAMPLE)
        .iter()
        .map(|object| format!("---\n{}", serde_yaml_ng::to_string(&object.0).unwrap()))
        .collect();
    let text = documents.concat();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap();
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == text, "{path} differs: look at the change, then run with UPDATE_GOLDEN=1");
}

#[test]
fn a_role_reads_the_file_that_is_built_for_it() {
    use basalt_api::role_file::{
        CoordinatorSettings, MasterSettings, RegionServerSettings, RoleFile,
    };
    let objects = built(EXAMPLE);
    let variable = |name: &str| match name {
        "POD_NAME" => Some("demo-regionserver-1".to_owned()),
        "POD_IP" => Some("10.244.1.9".to_owned()),
        _ => None,
    };
    let data = &find(&objects, "ConfigMap", "demo-regionserver")["data"];
    let text = data["regionserver.json"].as_str().unwrap();
    let file = RoleFile::<RegionServerSettings>::parse("f", text, variable).unwrap();
    assert_eq!(file.process, "demo-regionserver-1");
    assert_eq!(file.settings.server.host, "10.244.1.9");
    assert_eq!(file.settings.server.coordinators[2], "10.96.0.3:2181");
    let data = &find(&objects, "ConfigMap", "demo-coordinator")["data"];
    let text = data["demo-coordinator-2.json"].as_str().unwrap();
    let file = RoleFile::<CoordinatorSettings>::parse("f", text, variable).unwrap();
    assert_eq!(file.settings.member, 3);
    assert_eq!(file.settings.members[0].peer, "10.96.0.1:2888");
    let data = &find(&objects, "ConfigMap", "demo-master")["data"];
    let text = data["master.json"].as_str().unwrap();
    let file = RoleFile::<MasterSettings>::parse("f", text, variable).unwrap();
    let lease = file.settings.lease.unwrap();
    assert_eq!((lease.namespace.as_str(), lease.name.as_str()), ("prod", "demo-master"));
}

#[test]
fn only_masters_have_a_token_and_it_is_good_for_their_lease_and_their_own_pods_alone() {
    let objects = built(EXAMPLE);
    let has_token = |role: &str| {
        let spec = &find(&objects, "StatefulSet", role)["spec"]["template"]["spec"];
        spec["automountServiceAccountToken"].as_bool().unwrap()
    };
    let roles = ["demo-coordinator", "demo-master", "demo-regionserver"];
    assert_eq!(roles.map(has_token), [false, true, false]);
    let all: Vec<_> = objects.iter().filter(|object| object.kind() == "Role").collect();
    assert_eq!(all.len(), 1);
    let rules = all[0].0["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[1]["resources"], json!(["pods"]));
    assert_eq!(rules[1]["resourceNames"], json!(["demo-master-0", "demo-master-1"]));
    assert_eq!(rules[1]["verbs"], json!(["patch"]));
    assert_eq!(rules[0]["resources"], json!(["leases"]));
    assert_eq!(
        rules[0]["resourceNames"],
        json!([find(&objects, "Lease", "demo-master")["metadata"]["name"]])
    );
}

#[test]
fn a_changed_setting_changes_the_pods_of_its_role_alone() {
    let before = built(EXAMPLE);
    let after = built(&EXAMPLE.replace(
        "regionServers: { replicas: 3 }",
        "regionServers: { replicas: 5, config: { hbase.regionserver.maxlogs: '9' } }",
    ));
    let template = |objects: &[Object], name: &str| {
        find(objects, "StatefulSet", name)["spec"]["template"].clone()
    };
    assert_ne!(template(&before, "demo-regionserver"), template(&after, "demo-regionserver"));
    assert_eq!(template(&before, "demo-master"), template(&after, "demo-master"));
    let scaled = built(&EXAMPLE.replace("replicas: 3 }\n  storage", "replicas: 5 }\n  storage"));
    assert_eq!(template(&before, "demo-regionserver"), template(&scaled, "demo-regionserver"));
}

#[test]
fn a_pod_template_is_laid_over_what_is_built() {
    let objects = built(&EXAMPLE.replace(
        "masters: { replicas: 2 }",
        "masters: { replicas: 2, podTemplate: { spec: { priorityClassName: high, \
         containers: [{ name: basalt, env: [{ name: RUST_LOG, value: debug }] }] } } }",
    ));
    let spec = &find(&objects, "StatefulSet", "demo-master")["spec"]["template"]["spec"];
    assert_eq!(spec["priorityClassName"], "high");
    let env = spec["containers"][0]["env"].as_array().unwrap();
    assert!(
        env.iter().any(|v| v["name"] == "POD_IP") && env.iter().any(|v| v["name"] == "RUST_LOG")
    );
}

#[test]
fn data_is_kept_unless_the_policy_says_otherwise() {
    let policy = |manifest: &str| {
        let objects = built(manifest);
        let spec = &find(&objects, "StatefulSet", "demo-coordinator")["spec"];
        spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"].clone()
    };
    assert_eq!(policy(EXAMPLE), "Retain");
    let deleting = EXAMPLE.replace("  storage:", "  deletionPolicy: Delete\n  storage:");
    assert_eq!(policy(&deleting), "Delete");
}

#[test]
fn a_pod_monitor_is_made_where_one_is_asked_for() {
    let asking = EXAMPLE.replacen("spec:\n", "spec:\n  metrics: { podMonitor: true }\n", 1);
    let objects = built(&asking);
    let monitor = find(&objects, "PodMonitor", "demo");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "health");
    let labels = &monitor["spec"]["selector"]["matchLabels"];
    let pods = find(&objects, "StatefulSet", "demo-regionserver");
    let of_pods = &pods["spec"]["template"]["metadata"]["labels"];
    for (name, value) in labels.as_object().unwrap() {
        assert_eq!(&of_pods[name], value, "{name}");
    }
    assert!(built(EXAMPLE).iter().all(|object| object.kind() != "PodMonitor"));
}

#[test]
fn a_cluster_on_hdfs_mounts_its_settings_and_no_claim() {
    let objects = built(include_str!("../../../../examples/hdfs.yaml"));
    for role in ["master", "regionserver"] {
        let name = format!("demo-{role}");
        let spec = &find(&objects, "StatefulSet", &name)["spec"]["template"]["spec"];
        assert_eq!(spec["volumes"][1]["configMap"]["name"], "hdfs-client");
        assert_eq!(spec["containers"][0]["volumeMounts"][1]["mountPath"], "/etc/hadoop");
        let machine = &spec["containers"][0]["env"][3];
        assert_eq!(machine["name"], "BASALT_MACHINE");
        assert_eq!(machine["valueFrom"]["fieldRef"]["fieldPath"], "status.hostIP");
        let file = &find(&objects, "ConfigMap", &name)["data"][format!("{role}.json")];
        let file: Value = serde_json::from_str(file.as_str().unwrap()).unwrap();
        let storage = &file["settings"]["server"]["storage"];
        assert_eq!(storage["conf"], "/etc/hadoop");
        assert_eq!(storage["nameservice"], "prod");
        assert_eq!(storage["root"], "/basalt/demo");
    }
    for object in &objects {
        assert!(!object.0.to_string().contains("\"shared\""), "{}", object.name());
    }
}
