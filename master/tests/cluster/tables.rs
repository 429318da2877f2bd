//! Creating, changing, truncating and deleting tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_cluster::catalog::SharedRegion;
use basalt_cluster::{Nodes, pb as cluster};
use basalt_fs::FileSystem;
use basalt_hbase_rpc::pb::get_procedure_result_response::State;
use basalt_hbase_rpc::{pb, schema};
use basalt_master::LeaseGuard;
use basalt_model::{FamilyDescriptor, RegionState, TableName, TableState, paths};
use bytes::Bytes;

use crate::{Cluster, PATIENCE, create_request, until};

/// How long to wait for something that must not happen.
const QUIET: Duration = Duration::from_secs(1);

// === impl Cluster ===

impl Cluster {
    async fn disable(&self, table: &pb::TableName) -> u64 {
        let request = pb::DisableTableRequest { table_name: table.clone(), ..Default::default() };
        let disabled: pb::DisableTableResponse = self.call("DisableTable", &request).await;
        disabled.proc_id()
    }

    async fn delete(&self, table: &pb::TableName) -> u64 {
        let request = pb::DeleteTableRequest { table_name: table.clone(), ..Default::default() };
        let deleted: pb::DeleteTableResponse = self.call("DeleteTable", &request).await;
        deleted.proc_id()
    }

    async fn truncate(&self, table: &pb::TableName, preserve_splits: bool) -> u64 {
        let request = pb::TruncateTableRequest {
            table_name: table.clone(),
            preserve_splits: Some(preserve_splits),
            ..Default::default()
        };
        let truncated: pb::TruncateTableResponse = self.call("truncateTable", &request).await;
        truncated.proc_id()
    }

    async fn procedure_state(&self, proc_id: u64) -> State {
        let request = pb::GetProcedureResultRequest { proc_id };
        let result: pb::GetProcedureResultResponse =
            self.call("getProcedureResult", &request).await;
        result.state()
    }

    fn region_ids(&self) -> BTreeSet<u64> {
        self.catalog.regions().values().map(|region| region.record.info.region_id).collect()
    }
}

/// The request to add a family to the table `t`.
fn add_request(family: &str) -> pb::AddColumnRequest {
    pb::AddColumnRequest {
        table_name: schema::table_name_to_message(&"t".parse().unwrap()),
        column_families: schema::family_to_message(&FamilyDescriptor::new(family)),
        ..Default::default()
    }
}

/// Two keys of a table `table1` whose regions have the same encoded name, by a known MD5 collision.
fn colliding_keys() -> [Bytes; 2] {
    const TAIL: [u8; 128] = [
        94, 66, 185, 153, 219, 183, 152, 87, 250, 161, 224, 241, 188, 9, 104, 93, 49, 83, 91, 38,
        117, 42, 147, 161, 38, 82, 122, 70, 135, 158, 151, 48, 132, 229, 185, 227, 108, 110, 42,
        108, 7, 12, 239, 3, 150, 81, 189, 67, 33, 177, 222, 99, 45, 251, 43, 17, 131, 104, 193,
        190, 36, 31, 174, 149, 175, 211, 87, 7, 138, 1, 250, 241, 186, 131, 140, 125, 165, 65, 49,
        131, 174, 174, 248, 230, 249, 229, 70, 167, 201, 26, 254, 77, 236, 7, 222, 109, 14, 109,
        158, 151, 244, 22, 8, 148, 168, 138, 56, 55, 7, 181, 118, 172, 231, 7, 16, 34, 252, 185,
        31, 109, 189, 19, 86, 169, 237, 88, 240, 177,
    ];
    const CHANGES: [(usize, u8); 8] =
        [(19, 166), (45, 209), (46, 188), (59, 62), (83, 102), (109, 53), (110, 119), (123, 41)];
    let mut one = vec![0; 57];
    one.extend(TAIL);
    let mut other = one.clone();
    for (place, byte) in CHANGES {
        other[57 + place] = byte;
    }
    [one.into(), other.into()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_disabled_enabled_and_deleted() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.finished(cluster.create_table("t", 3, 1).await).await;
    cluster.add_server().await;
    let table: TableName = "t".parse().unwrap();
    let table_name = schema::table_name_to_message(&table);

    let request = pb::DeleteTableRequest { table_name: table_name.clone(), ..Default::default() };
    let refusal = cluster.call_once::<pb::DeleteTableResponse>("DeleteTable", &request).await;
    assert!(refusal.unwrap_err().contains("TableNotDisabledException"));

    let disable = pb::DisableTableRequest { table_name: table_name.clone(), ..Default::default() };
    let disabled: pb::DisableTableResponse = cluster.call("DisableTable", &disable).await;
    cluster.finished(disabled.proc_id()).await;
    until("all regions are closed", async || cluster.open_regions().values().sum::<usize>() == 0)
        .await;

    let enable = pb::EnableTableRequest { table_name: table_name.clone(), ..Default::default() };
    let enabled: pb::EnableTableResponse = cluster.call("EnableTable", &enable).await;
    cluster.finished(enabled.proc_id()).await;
    cluster.all_open(3).await;

    let disabled: pb::DisableTableResponse = cluster.call("DisableTable", &disable).await;
    cluster.finished(disabled.proc_id()).await;
    let deleted: pb::DeleteTableResponse = cluster.call("DeleteTable", &request).await;
    cluster.finished(deleted.proc_id()).await;
    until("nothing is left", async || {
        cluster.catalog.regions().is_empty() && cluster.catalog.tables().is_empty()
    })
    .await;
    assert!(!cluster.disk.exists(&paths::table(&table)).await.unwrap());
    cluster.finished(cluster.create_table("t", 2, 2).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_regions_of_an_altered_table_are_opened_anew_where_they_are() {
    let cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 6, 1).await).await;
    cluster.all_open(6).await;
    let owners = || -> BTreeMap<_, _> {
        let regions = cluster.catalog.regions().into_iter();
        regions.map(|(name, r)| (name, (r.record.server.clone(), r.record.epoch))).collect()
    };
    let before = owners();
    let table: TableName = "t".parse().unwrap();
    let added: pb::AddColumnResponse = cluster.call("AddColumn", &add_request("added")).await;
    cluster.finished(added.proc_id()).await;
    cluster.all_open(6).await;
    for (name, (server, epoch)) in owners() {
        let (server_before, epoch_before) = &before[&name];
        assert_eq!(&server, server_before);
        assert!(epoch > *epoch_before, "{name} was not opened anew");
    }
    let found = cluster.catalog.table(&table).unwrap().record;
    assert_eq!(found.descriptor.families.len(), 2);
    assert_eq!(found.state, TableState::Enabled);
    let again =
        cluster.call_once::<pb::AddColumnResponse>("AddColumn", &add_request("added")).await;
    assert!(again.unwrap_err().contains("InvalidFamilyOperationException"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_family_is_added_again_only_once_every_region_was_opened_anew() {
    let cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 4, 1).await).await;
    cluster.all_open(4).await;
    let epochs = || -> BTreeMap<_, _> {
        let regions = cluster.catalog.regions().into_iter();
        regions.map(|(name, region)| (name, region.record.epoch.0)).collect()
    };
    let before = epochs();
    // The record that an alteration leaves whose procedure failed.
    let table: TableName = "t".parse().unwrap();
    let path = Nodes::below("/basalt").table(&table);
    let mut record = cluster.catalog.table(&table).unwrap().record;
    record.removed.insert("removed".to_owned());
    cluster.client.set_data(&path, record.encode(), None).await.unwrap();
    let request = add_request("removed");
    let refused = cluster.call_once::<pb::AddColumnResponse>("AddColumn", &request).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("PleaseHoldException") && refused.contains("removed"), "{refused}");
    // A client tries again.
    let added: pb::AddColumnResponse = cluster.call("AddColumn", &request).await;
    cluster.finished(added.proc_id()).await;
    cluster.all_open(4).await;
    for (name, epoch) in epochs() {
        assert_eq!(epoch, before[&name] + 2, "{name} is opened without the family, then with it");
    }
    let found = cluster.catalog.table(&table).unwrap().record;
    assert_eq!(found.removed, BTreeSet::new());
    assert!(found.descriptor.families.contains_key("removed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_being_altered_is_disabled_once_that_is_done() {
    let cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 2, 1).await).await;
    cluster.controls.hold_closes();
    let added: pb::AddColumnResponse = cluster.call("AddColumn", &add_request("added")).await;
    until("a region is to be reopened", async || cluster.controls.held_closes() > 0).await;
    let table_name = schema::table_name_to_message(&"t".parse().unwrap());
    let request = pb::DisableTableRequest { table_name: table_name.clone(), ..Default::default() };
    let refused = cluster.call_once::<pb::DisableTableResponse>("DisableTable", &request).await;
    assert!(refused.unwrap_err().contains("PleaseHoldException"), "clients try again");
    cluster.controls.release_closes();
    cluster.finished(added.proc_id()).await;
    cluster.finished(cluster.disable(&table_name).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alteration_ends_although_a_region_does_not_open() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 4, 1).await).await;
    cluster.all_open(4).await;
    cluster.controls.hold_opens(true);
    let dead = cluster.kill_server(0);
    let epochs = || -> BTreeMap<_, _> {
        let regions = cluster.catalog.regions().into_iter();
        regions.map(|(name, region)| (name, region.record.epoch)).collect()
    };
    let is_opening = || {
        let regions: Vec<SharedRegion> = cluster.catalog.regions().into_values().collect();
        let is_opening = |region: &&SharedRegion| region.record.state == RegionState::Opening;
        regions.iter().all(|region| region.record.server.as_ref() != Some(&dead))
            && regions.iter().filter(is_opening).count() == 2
    };
    until("the other server is to open two regions", async || is_opening()).await;
    let before = epochs();
    let added: pb::AddColumnResponse = cluster.call("AddColumn", &add_request("added")).await;
    // Two are closed and not opened again, and two were being opened before.
    cluster.finished(added.proc_id()).await;
    assert_eq!(cluster.open_regions().into_values().sum::<usize>(), 0);
    assert!(epochs().into_iter().all(|(name, epoch)| epoch > before[&name]));
    cluster.controls.hold_opens(false);
    cluster.all_open(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn split_keys_whose_regions_would_have_one_name_are_rejected() {
    let cluster = Cluster::start(1, 1).await;
    let request = create_request("table1", colliding_keys(), 1);
    let made = cluster.call_once::<pb::CreateTableResponse>("CreateTable", &request).await;
    let refusal = made.unwrap_err();
    assert!(refusal.contains("FailedSanityCheckException"), "{refusal}");
    assert!(refusal.contains("encoded name"), "{refusal}");
    // In a table with another name these keys do not collide.
    let request = create_request("table2", colliding_keys(), 2);
    let made: pb::CreateTableResponse = cluster.call("CreateTable", &request).await;
    cluster.finished(made.proc_id()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_that_a_table_can_be_made_with_can_be_deleted() {
    let cluster = Cluster::start(1, 1).await;
    let longest = "l".repeat(255);
    let too_long = create_request(&"l".repeat(256), [], 1);
    let made = cluster.call_once::<pb::CreateTableResponse>("CreateTable", &too_long).await;
    let refusal = made.unwrap_err();
    assert!(refusal.contains("256 bytes") && refusal.contains("255"), "{refusal}");
    // Twice: the second deletion must not collide with what the first one left.
    for nonce in [2, 3] {
        cluster.finished(cluster.create_table(&longest, 2, nonce).await).await;
        let name = schema::table_name_to_message(&longest.parse().unwrap());
        cluster.finished(cluster.disable(&name).await).await;
        cluster.finished(cluster.delete(&name).await).await;
    }
    until("nothing is left", async || cluster.catalog.tables().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_under_way_opens_no_region_of_a_table_that_was_disabled() {
    let cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 2, 1).await).await;
    cluster.all_open(2).await;
    let table: TableName = "t".parse().unwrap();
    let name = schema::table_name_to_message(&table);

    // A move has begun: its order to close the region is at the server.
    cluster.controls.hold_closes();
    let leaving = cluster.servers[0].name.clone();
    let request = cluster::DrainRequest { server_name: leaving.to_string() };
    let mut peer = cluster.peer().await;
    let draining = tokio::spawn(async move { peer.drain(request).await });
    until("the move has begun", async || cluster.controls.held_closes() == 1).await;
    let disabled = cluster.disable(&name).await;
    // The disabling either waits for the move, or has sent its own orders to close to the servers.
    tokio::time::sleep(QUIET).await;
    while cluster.controls.held_closes() > 1 {
        cluster.controls.release_last_close();
    }
    tokio::time::sleep(QUIET).await;
    cluster.controls.release_closes();
    cluster.finished(disabled).await;
    draining.await.unwrap().unwrap();
    let is_closed = || {
        let regions = cluster.catalog.regions();
        regions.values().all(|region| region.record.state == RegionState::Closed)
    };
    until("the regions are closed", async || is_closed()).await;
    tokio::time::sleep(QUIET).await;
    assert!(is_closed(), "a region of a disabled table was opened");
    cluster.finished(cluster.delete(&name).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_procedures_and_moves_are_listed() {
    let cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 2, 1).await).await;
    cluster.all_open(2).await;
    let name = schema::table_name_to_message(&"t".parse().unwrap());
    let locks = async || -> pb::GetLocksResponse {
        cluster.call("GetLocks", &pb::GetLocksRequest {}).await
    };
    assert_eq!(locks().await.lock, []);
    cluster.controls.hold_closes();
    let leaving = cluster.servers[0].name.clone();
    let request = cluster::DrainRequest { server_name: leaving.to_string() };
    let mut peer = cluster.peer().await;
    let draining = tokio::spawn(async move { peer.drain(request).await });
    until("the move has begun", async || cluster.controls.held_closes() == 1).await;
    let disabled = cluster.disable(&name).await;
    let found = locks().await.lock;
    let of_table = found.iter().find(|lock| lock.resource_name() == "t").unwrap();
    assert_eq!(of_table.resource_type(), pb::LockedResourceType::Table);
    assert_eq!((of_table.lock_type(), of_table.shared_lock_count()), (pb::LockType::Shared, 1));
    assert_eq!(of_table.waiting_procedures.len(), 1);
    assert_eq!(of_table.waiting_procedures[0].proc_id, disabled);
    assert!(found.iter().any(|lock| lock.resource_type() == pb::LockedResourceType::Region));
    cluster.controls.release_closes();
    cluster.finished(disabled).await;
    draining.await.unwrap().unwrap();
    until("no lock is left", async || locks().await.lock.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_truncated_with_and_without_its_splits() {
    let cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 3, 1).await).await;
    let table: TableName = "t".parse().unwrap();
    let name = schema::table_name_to_message(&table);
    let marker = paths::table(&table).join("marker");
    for (preserve_splits, regions) in [(true, 3), (false, 1)] {
        cluster.disk.create(&marker).await.unwrap();
        let before = cluster.region_ids();
        let request = pb::TruncateTableRequest { table_name: name.clone(), ..Default::default() };
        let refused = cluster.call_once::<pb::TruncateTableResponse>("truncateTable", &request);
        assert!(refused.await.unwrap_err().contains("TableNotDisabledException"));
        cluster.finished(cluster.disable(&name).await).await;
        cluster.finished(cluster.truncate(&name, preserve_splits).await).await;
        cluster.all_open(regions).await;
        assert!(cluster.region_ids().is_disjoint(&before), "old regions are left");
        assert!(!cluster.disk.exists(&marker).await.unwrap(), "old files are left");
        let found = cluster.catalog.table(&table).unwrap().record;
        assert_eq!(found.state, TableState::Enabled);
        assert_eq!(found.descriptor.families.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_came_back_keeps_no_deletion_from_its_end() {
    let cluster = Cluster::start(1, 1).await;
    cluster.finished(cluster.create_table("t", 1, 1).await).await;
    let table: TableName = "t".parse().unwrap();
    let name = schema::table_name_to_message(&table);
    let disabled = cluster.disable(&name).await;
    cluster.finished(disabled).await;
    // The state that a master leaves if it dies between moving the folder and recording that, while
    // a server that opened a region late created the folder again.
    let next = disabled + 1;
    let archived = paths::archived(&paths::table(&table));
    let taken = archived.with_file_name(format!("t.deleted-{next}"));
    cluster.disk.create_directories(&taken).await.unwrap();
    let deleted = cluster.delete(&name).await;
    assert_eq!(deleted, next);
    tokio::time::timeout(PATIENCE, cluster.finished(deleted)).await.unwrap();
    assert!(!cluster.disk.exists(&paths::table(&table)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_procedure_ends_once_every_catalog_shows_what_it_did() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.controls.hold_catalogs(true);
    let created = cluster.create_table("t", 2, 1).await;
    cluster.all_open(2).await;
    let is_enabled = || {
        let table = cluster.catalog.table(&"t".parse().unwrap());
        table.is_some_and(|table| table.record.state == TableState::Enabled)
    };
    until("the table is enabled", async || is_enabled()).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(cluster.procedure_state(created).await, State::Running, "a catalog lags behind");
    cluster.controls.hold_catalogs(false);
    cluster.finished(created).await;

    // The next master does not know whether the catalogs show the effects of the last one.
    cluster.controls.hold_catalogs(true);
    let disabled = cluster.disable(&schema::table_name_to_message(&"t".parse().unwrap())).await;
    until("the table is disabled", async || {
        let table = cluster.catalog.table(&"t".parse().unwrap());
        table.is_some_and(|table| table.record.state == TableState::Disabled)
    })
    .await;
    let epoch = cluster.active().unwrap().epoch;
    cluster.masters[0].kill();
    cluster.add_master(2_001, LeaseGuard::without_lease());
    until("another master is active", async || {
        cluster.active().is_some_and(|active| active.epoch > epoch)
    })
    .await;
    assert_eq!(cluster.procedure_state(disabled).await, State::Running);
    cluster.controls.hold_catalogs(false);
    cluster.finished(disabled).await;
}
