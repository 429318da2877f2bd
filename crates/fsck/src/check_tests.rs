//! Tests of the comparison.

use basalt_cluster::{RegionRecord, TableRecord, pb};
use basalt_model::{FamilyDescriptor, RegionInfo, SequenceId, TableDescriptor, TableState};
use basalt_storage::manifest::FileEntry;
use bytes::Bytes;

use super::*;

const TABLE: &str = "default:t";

/// A table of one open region under epoch 3, whose manifest names one file of 7 bytes, and a dead
/// server whose log it still needs.
struct Cluster {
    records: Records,
    manifests: Manifests,
    region: EncodedRegionName,
    file: PathBuf,
    dead: ServerName,
}

fn server(host: &str) -> ServerName {
    format!("{host},16020,5").parse().unwrap()
}

fn cluster() -> Cluster {
    let table: TableName = TABLE.parse().unwrap();
    let info = RegionInfo::primary(table.clone(), Bytes::new(), Bytes::new(), 1);
    let region = info.encoded_name();
    let dead = server("dead");
    let mut record = RegionRecord::new(info).assigned_to(server("owner"));
    record.state = RegionState::Open;
    record.epoch = RegionEpoch(3);
    record.unflushed = vec![dead.clone()];
    let descriptor = TableDescriptor {
        name: table.clone(),
        families: [("f".to_owned(), FamilyDescriptor::new("f"))].into(),
        region_replication: 1,
        settings: BTreeMap::new(),
    };
    let entry = FileEntry {
        name: "a".to_owned(),
        length: 7,
        highest: SequenceId(1),
        ..FileEntry::default()
    };
    let manifest = Manifest {
        epoch: RegionEpoch(3),
        families: [("f".to_owned(), vec![entry])].into(),
        ..Manifest::default()
    };
    let log = |name: &str, sealed_length| pb::SealedLog { name: name.to_owned(), sealed_length };
    let table_record = TableRecord::new(descriptor, TableState::Enabled);
    let records = Records {
        cluster_id: "id".to_owned(),
        tables: [(table.clone(), table_record)].into(),
        regions: [(region, record)].into(),
        servers: [server("owner")].into(),
        logs: [(server("owner"), vec![pb::ListedLog { number: 4, durable_bytes: 9 }])].into(),
        sealed: [(dead.clone(), vec![log("log.1", 1_000), log("empty", 3)])].into(),
        accepted: BTreeSet::new(),
    };
    let file = paths::family(&table, region, "f").join("a");
    Cluster { records, manifests: [(region, Ok(Some(manifest)))].into(), region, file, dead }
}

impl Cluster {
    /// Everything that is named, as it should be.
    fn found(&self) -> (Found, Found) {
        let files = [(self.file.clone(), Ok(Some(7)))].into();
        let logs = needed_logs(&self.records).into_iter();
        (files, logs.map(|log| (log.path, Ok(Some(log.length)))).collect())
    }

    fn evidence(&self) -> Evidence {
        Evidence::new(self.records.clone(), self.manifests.clone())
    }

    fn problems(&self, files: &Found, logs: &Found) -> Vec<String> {
        let problems = problems(&self.evidence(), "id", files, logs);
        problems.iter().map(ToString::to_string).collect()
    }

    fn kind_of(&self, path: &Path) -> Option<UnreferencedKind> {
        let tree = Tree { files: [(path.to_owned(), 1)].into() };
        let found = unreferenced(&self.evidence(), &tree);
        found.first().map(|file| file.kind)
    }
}

#[test]
fn a_whole_cluster_has_no_problem() {
    let cluster = cluster();
    let (files, logs) = cluster.found();
    assert_eq!(logs.len(), 2, "a log that was sealed within its header need not exist: {logs:?}");
    assert_eq!(cluster.problems(&files, &logs), Vec::<String>::new());
    for path in [cluster.file.clone(), paths::archived(&cluster.file), "/hbase.id".into()] {
        assert_eq!(cluster.kind_of(&path), None, "{}", path.display());
    }
}

#[test]
fn missing_and_wrong_files_are_problems() {
    let cluster = cluster();
    let (mut files, mut logs) = cluster.found();
    files.insert(cluster.file.clone(), Ok(Some(6)));
    let sealed = paths::fenced_logs(&cluster.dead).join("log.1");
    logs.insert(sealed.clone(), Ok(Some(999)));
    let problems = cluster.problems(&files, &logs);
    assert_eq!(problems.len(), 2, "{problems:?}");
    let expected = format!(": 6 bytes, but the manifest of region {} says 7", cluster.region);
    assert!(problems[0].ends_with(&expected), "{problems:?}");
    assert!(problems[1].contains("999 bytes"), "{problems:?}");
    files.insert(cluster.file.clone(), Ok(None));
    logs.insert(sealed.clone(), Ok(None));
    let problems = cluster.problems(&files, &logs);
    assert!(problems.iter().all(|problem| problem.contains(": missing; ")), "{problems:?}");
    files.insert(cluster.file.clone(), Err("no replica".to_owned()));
    logs.insert(sealed, Err("no replica".to_owned()));
    let problems = cluster.problems(&files, &logs);
    let is_unreadable = |problem: &String| problem.ends_with("cannot be opened: no replica");
    assert!(problems.len() == 2 && problems.iter().all(is_unreadable), "{problems:?}");
}

#[test]
fn the_log_of_an_owner_that_is_dead_and_not_fenced_yet_is_needed() {
    let mut cluster = cluster();
    cluster.records.servers.clear();
    let (files, mut logs) = cluster.found();
    let owner = server("owner");
    let path = paths::server_logs(&owner).join(format!("{owner}.4"));
    assert_eq!(cluster.kind_of(&path), None);
    logs.insert(path, Ok(Some(8)));
    let problems = cluster.problems(&files, &logs);
    assert!(problems[0].ends_with("must have 9"), "{problems:?}");
    // Nothing that the dead server did before it was fenced is known without its sealed lengths.
    cluster.records.sealed.clear();
    let problems = cluster.problems(&files, &logs).concat();
    assert!(
        problems.contains("the logs of dead,16020,5, which have not been sealed"),
        "{problems}"
    );
}

#[test]
fn an_accepted_loss_is_no_problem() {
    let mut cluster = cluster();
    let (files, mut logs) = cluster.found();
    logs.insert(paths::fenced_logs(&cluster.dead).join("log.1"), Ok(None));
    assert_eq!(cluster.problems(&files, &logs).len(), 1);
    cluster.records.accepted.insert("log.1".to_owned());
    assert_eq!(cluster.problems(&files, &logs), Vec::<String>::new());
}

#[test]
fn an_open_region_needs_a_manifest_of_its_owner() {
    let mut cluster = cluster();
    let (files, logs) = cluster.found();
    let set = |cluster: &mut Cluster, manifest| cluster.manifests.insert(cluster.region, manifest);
    let older = Manifest { epoch: RegionEpoch(2), ..Manifest::default() };
    set(&mut cluster, Ok(Some(older)));
    assert!(cluster.problems(&files, &logs)[0].ends_with("its newest manifest is of epoch 2"));
    // It was read after the record: the region has moved.
    let newer = Manifest { epoch: RegionEpoch(4), ..Manifest::default() };
    set(&mut cluster, Ok(Some(newer)));
    assert_eq!(cluster.problems(&files, &logs), Vec::<String>::new());
    set(&mut cluster, Ok(None));
    assert!(cluster.problems(&files, &logs)[0].ends_with("without a manifest"));
    set(&mut cluster, Err("damaged".to_owned()));
    assert!(cluster.problems(&files, &logs)[0].ends_with("cannot be read: damaged"));
    assert_eq!(cluster.kind_of(&cluster.file), None, "it may be named");
}

#[test]
fn the_regions_of_a_table_cover_all_rows_once() {
    let mut cluster = cluster();
    let table: TableName = TABLE.parse().unwrap();
    let mut with = |ranges: &[(&'static str, &'static str)]| {
        cluster.records.regions = ranges
            .iter()
            .map(|(start, end)| {
                let (start, end) = (Bytes::from(*start), Bytes::from(*end));
                RegionRecord::new(RegionInfo::primary(table.clone(), start, end, 1))
            })
            .map(|record| (record.encoded_name(), record))
            .collect();
        broken_key_space(&cluster.records, &table)
    };
    assert_eq!(with(&[("", "b"), ("b", "d"), ("d", "")]), None);
    assert_eq!(with(&[]).unwrap(), "it has no regions");
    assert_eq!(with(&[("a", "")]).unwrap(), "no region has the rows from \"\" to \"a\"");
    assert_eq!(with(&[("", "b")]).unwrap(), "no region has the rows from \"b\"");
    assert_eq!(
        with(&[("", "b"), ("c", "")]).unwrap(),
        "no region has the rows from \"b\" to \"c\""
    );
    assert_eq!(with(&[("", "c"), ("b", "")]).unwrap(), "two regions have the rows from \"b\"");
    assert!(with(&[("", ""), ("b", "")]).unwrap().contains("has no rows"));
}

#[test]
fn each_kind_of_unreferenced_file_is_recognised() {
    use UnreferencedKind::{Archived, Log, NoOwner, RegionFile, Temporary, Unknown};
    let cluster = cluster();
    let table: TableName = TABLE.parse().unwrap();
    let region = paths::region(&table, cluster.region);
    let other = EncodedRegionName::from_digest([7; 16]);
    let cases = [
        (region.join("f/b"), Some(RegionFile)),
        (region.join("removed/a"), Some(RegionFile)),
        (region.join(".nonces/n"), Some(RegionFile)),
        (region.join(".manifest/00000000000000000001-0000000001"), None),
        (region.join(".regioninfo"), None),
        (region.join(".tmp/3-b"), Some(Temporary)),
        (region.join(".manifest/.aside-1-x"), Some(Temporary)),
        (region.join("a/b/c"), Some(Unknown)),
        (paths::table_descriptors(&table).join(".tableinfo.0000000001"), None),
        (paths::family(&table, other, "f").join("a"), Some(NoOwner)),
        ("/data/default/gone/.tabledesc/.tableinfo.0000000001".into(), Some(NoOwner)),
        ("/data/default/t".into(), Some(Unknown)),
        (paths::archived(&region.join("f/b")), Some(Archived)),
        ("/archive/data/default/t.deleted-4/x".into(), Some(Archived)),
        (paths::server_logs(&server("owner")).join("x"), None),
        (paths::fenced_logs(&cluster.dead).join("copy-1/log.1"), None),
        (paths::fenced_logs(&server("older")).join("log.1"), Some(Log)),
        ("/.hbase.id-m,1,2".into(), Some(Temporary)),
        ("/.master-epochs/00000000000000000007".into(), None),
        ("/notes.txt".into(), Some(Unknown)),
    ];
    for (path, kind) in cases {
        assert_eq!(cluster.kind_of(&path), kind, "{}", path.display());
    }
}
