//! Tests of `validate`: the rejected manifests, and their error messages.

use super::*;
use crate::Manifests;

const DEMO: &str = include_str!("../../../examples/cluster.yaml");
const MINIMAL: &str = include_str!("../../../examples/minimal.yaml");

fn check(text: &str) -> Result<ValidatedCluster, Vec<String>> {
    let manifests = Manifests::from_yaml("demo.yaml", text).unwrap();
    let (cluster, tables) = manifests.into_single_cluster("demo.yaml").unwrap();
    validate(&cluster, &tables)
        .map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

/// Asserts that the smallest cluster with `line` added to its spec is rejected with `parts`.
#[track_caller]
fn cluster_refused(line: &str, parts: &[&str]) {
    refused(&MINIMAL.replacen("spec:\n", &format!("spec:\n  {line}\n"), 1), parts);
}

/// Asserts that the smallest table with `field` added to its spec is rejected with `parts`.
#[track_caller]
fn table_refused(field: &str, parts: &[&str]) {
    refused(
        &MINIMAL.replacen("spec: { clusterRef", &format!("spec: {{ {field}, clusterRef"), 1),
        parts,
    );
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    assert_ne!(text, MINIMAL, "nothing was changed");
    let problems = check(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    for part in parts {
        assert!(problems[0].contains(part), "{part:?} is not in: {}", problems[0]);
    }
}

#[test]
fn a_log_level_that_no_process_could_start_with_is_refused() {
    let level = |level: &str| format!("logging: {{ level: {level:?} }}");
    for bad in ["", "verbose", "INFO", "info,", "info,=debug", "basalt_master=loud", "a b=info"] {
        cluster_refused(&level(bad), &["spec.logging.level", "error, warn, info, debug, trace"]);
    }
    cluster_refused(&level(&"info,".repeat(300)), &["spec.logging.level", "at most 1000"]);
    for good in ["warn", "off", "info,basalt_master=debug", "basalt_hbase_rpc::server=trace"] {
        let line = format!("spec:\n  {}\n", level(good));
        let cluster = check(&MINIMAL.replacen("spec:\n", &line, 1)).unwrap();
        assert_eq!(cluster.log_level, good);
    }
}

#[test]
fn the_demo_is_what_it_says() {
    let cluster = check(DEMO).unwrap();
    assert_eq!(cluster.name, "demo");
    assert_eq!((cluster.coordinators, cluster.masters, cluster.region_servers), (3, 2, 3));
    assert_eq!(cluster.storage, ValidatedStorage::Claim("demo-data".to_owned()));
    assert_eq!(cluster.timers.session_timeout.as_millis(), 1_500);
    let table = &cluster.tables[0];
    assert_eq!(table.descriptor.name.to_string(), "usertable");
    assert_eq!(table.split_keys.len(), 11);
    assert_eq!(table.split_keys[0], "user08333333");
    let family = &table.descriptor.families["family"];
    assert_eq!(family.versions_max, 1);
    assert_eq!(family.compression, basalt_model::Compression::Zstd);
}

#[test]
fn a_table_that_says_nothing_has_one_region_and_the_defaults_of_hbase() {
    let cluster = check(MINIMAL).unwrap();
    assert!(cluster.tables[0].split_keys.is_empty());
    let family = &cluster.tables[0].descriptor.families["family"];
    assert_eq!(*family, FamilyDescriptor::new("family"));
}

#[test]
fn a_table_chooses_whether_its_writes_wait_for_the_disks() {
    let with = |field: &str| {
        let text =
            MINIMAL.replacen("spec: { clusterRef", &format!("spec: {{ {field}, clusterRef"), 1);
        check(&text).unwrap().tables.remove(0).descriptor
    };
    assert!(!check(MINIMAL).unwrap().tables[0].descriptor.syncs_to_disk());
    assert!(!with("durability: SyncWal").syncs_to_disk());
    let descriptor = with("durability: FsyncWal");
    assert!(descriptor.syncs_to_disk());
    // Under HBase's name, which its shell shows and alters.
    assert_eq!(descriptor.settings["DURABILITY"], "FSYNC_WAL");
}

#[test]
fn what_does_not_work_yet_is_refused_by_name() {
    cluster_refused(
        "coordinator: { external: { connect: 'zk:2181', znodeParent: /b } }",
        &["spec.coordinator.external", "does not work yet"],
    );
    cluster_refused("tls: {}", &["spec.tls", "does not work yet"]);
    cluster_refused("access: { users: [] }", &["spec.access", "does not work yet"]);
    cluster_refused(
        "masters: { config: { a.b: c } }",
        &["spec.masters.config.a.b", "do not work yet"],
    );
    table_refused("regionReplicas: 2", &["spec.regionReplicas", "2 does not work yet"]);
    table_refused("access: {}", &["spec.access", "does not work yet"]);
    table_refused("namespace: prod", &["spec.namespace", "works so far"]);
}

#[test]
fn a_folder_of_an_hdfs_is_a_storage() {
    let with = |hdfs: &str| MINIMAL.replacen("shared: { claim: demo-data }", hdfs, 1);
    let cluster = check(&with("hdfs: { nameservice: prod, configMap: c, root: /b/demo }")).unwrap();
    let ValidatedStorage::Hdfs(hdfs) = cluster.storage else { panic!("it is on HDFS") };
    assert_eq!(hdfs.nameservice.as_deref(), Some("prod"));
    assert_eq!((hdfs.config_map.as_str(), hdfs.root.as_str()), ("c", "/b/demo"));
    check(&with("hdfs: { nameservice: 'nn-0:8020', configMap: c, root: /b }")).unwrap();
    for root in ["/", "b", "/b/", "/b/../c", "/b//c", "/b:c"] {
        let bad = format!("hdfs: {{ nameservice: prod, configMap: c, root: '{root}' }}");
        refused(&with(&bad), &["spec.storage.hdfs.root", root]);
    }
    let bad = "hdfs: { nameservice: 'hdfs://prod', configMap: c, root: /b }";
    refused(&with(bad), &["spec.storage.hdfs.nameservice", "hdfs://prod"]);
    let bad = "hdfs: { nameservice: prod, configMap: C_, root: /b }";
    refused(&with(bad), &["spec.storage.hdfs.configMap", "C_"]);
}

#[test]
fn numbers_out_of_range_say_the_range() {
    cluster_refused("coordinator: { replicas: 2 }", &["spec.coordinator.replicas", "1, 3 or 5"]);
    cluster_refused("masters: { replicas: 0 }", &["spec.masters.replicas", "from 1 to 9"]);
    cluster_refused("regionServers: { replicas: 0 }", &["spec.regionServers.replicas", "1000"]);
    cluster_refused("failover: { target: 500ms }", &["spec.failover", "1s <= target"]);
    table_refused("regions: { count: 0, split: { algorithm: Uniform } }", &["spec.regions.count"]);
}

#[test]
fn an_override_that_breaks_an_inequality_is_refused_with_it() {
    cluster_refused(
        "failover: { overrides: { sessionTimeout: 2s } }",
        &["spec.failover", "sum of the phases <= target", "3.4s <= 3s"],
    );
}

#[test]
fn an_unknown_setting_of_region_servers_is_refused_with_the_known_ones() {
    cluster_refused(
        "regionServers: { config: { a.b: c } }",
        &["spec.regionServers.config.a.b", "unknown", "hbase.hregion.memstore.flush.size"],
    );
}

#[test]
fn names_are_those_of_kubernetes_and_hbase() {
    refused(
        &MINIMAL.replace("name: demo }", "name: Demo }"),
        &["BasaltCluster Demo", "metadata.name", "lower-case"],
    );
    refused(
        &MINIMAL.replace("claim: demo-data", "claim: ../etc"),
        &["spec.storage.shared.claim", "../etc"],
    );
    table_refused("tableName: 'a/b'", &["spec.tableName", "a/b"]);
    refused(&MINIMAL.replace("name: family }", "name: 'a:b' }"), &["spec.families[0].name", "a:b"]);
}

#[test]
fn families_are_checked_one_by_one() {
    let with = |families: &str| MINIMAL.replace("[{ name: family }]", families);
    refused(&with("[]"), &["spec.families", "at least one"]);
    refused(&with("[{ name: a }, { name: a }]"), &["spec.families[1].name", "twice"]);
    refused(&with("[{ name: a, versions: 0 }]"), &["spec.families[0].versions"]);
    refused(&with("[{ name: a, minVersions: 2 }]"), &["spec.families[0].minVersions"]);
    refused(&with("[{ name: a, timeToLive: 500ms }]"), &["timeToLive", "whole seconds"]);
    refused(&with("[{ name: a, blockBytes: 1 }]"), &["blockBytes", "1024"]);
}

#[test]
fn regions_are_cut_by_an_algorithm_or_at_keys() {
    let with = |regions: &str| {
        check(&MINIMAL.replace("clusterRef", &format!("regions: {regions}, clusterRef")))
    };
    let keys = with("{ split: { keys: [b, m] } }").unwrap().tables[0].split_keys.clone();
    assert_eq!(keys, ["b", "m"]);
    assert_eq!(with("{ count: 3, split: { keys: [b, m] } }").unwrap().tables.len(), 1);
    for (regions, part) in [
        ("{ count: 3 }", "spec.regions.split: is missing"),
        ("{ count: 4, split: { keys: [b, m] } }", "spec.regions.count: is not 3"),
        ("{ split: { keys: [m, b] } }", "spec.regions.split.keys[1]: must be greater than"),
        ("{ split: { keys: [''] } }", "spec.regions.split.keys[0]: must be 1 to"),
        ("{ split: { keys: [a], prefix: p } }", "spec.regions.split.prefix"),
        ("{ split: {} }", "HexString, Uniform or DecimalString"),
        ("{ split: { keys: [a], algorithm: Uniform } }", "not both"),
    ] {
        let problems = with(regions).unwrap_err();
        assert!(problems[0].contains(part), "{regions}: {problems:?}");
    }
}

#[test]
fn all_problems_are_reported_together() {
    let text = DEMO
        .replace("masters: { replicas: 2 }", "masters: { replicas: 0 }")
        .replace("regionReplicas: 1", "regionReplicas: 3");
    let problems = check(&text).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].starts_with("BasaltCluster demo: spec.masters.replicas"));
    assert!(problems[1].starts_with("BasaltTable usertable: spec.regionReplicas"));
}

#[test]
fn a_table_declared_twice_is_refused() {
    let tables = DEMO.split_once("---\n").unwrap().1;
    let again = format!("{DEMO}---\n{}", tables.replace("name: usertable }", "name: other }"));
    assert_eq!(check(&again).unwrap().tables.len(), 2);
    let again = format!("{DEMO}---\n{tables}");
    let problems = check(&again).unwrap_err();
    assert!(problems[0].contains("declared twice"), "{problems:?}");
}
