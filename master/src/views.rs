//! The newest [`View`]: the watched catalog, overlaid with what this master has written.
//!
//! The catalog learns of a write through a watch, a moment after the write was acknowledged. The
//! master's own writes therefore overlay the catalog until the catalog shows them too. That way, no
//! decision is made twice and no region is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::catalog::{SharedRegion, Versioned};
use basalt_cluster::{Catalog, TableRecord, pb};
use basalt_model::{EncodedRegionName, ServerName, TableName};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::view::View;

/// The source of views; see the module.
#[derive(Debug)]
pub(crate) struct Views {
    catalog: Catalog,
    own: Mutex<Own>,
    newest: Mutex<Newest>,
}

/// The last view, and the state from which it was made.
#[derive(Debug, Default)]
struct Newest {
    catalog_change: u64,
    own_change: u64,
    view: Arc<View>,
}

/// What this master has written or learnt and the catalog may not show yet.
#[derive(Debug, Default)]
struct Own {
    regions: BTreeMap<EncodedRegionName, SharedRegion>,
    tables: BTreeMap<TableName, Versioned<TableRecord>>,
    marked_dead: BTreeSet<ServerName>,
    /// What Kubernetes knows of the pods that region servers run in, by uid.
    pods: BTreeMap<String, pb::Pod>,
    /// Counts the changes; 0 at first.
    changes: u64,
}

// === impl Views ===

impl Views {
    pub(crate) fn new(catalog: Catalog) -> Self {
        // No real change has this number, so the first view is always built.
        let newest = Newest { own_change: u64::MAX, ..Newest::default() };
        Self { catalog, own: Mutex::default(), newest: Mutex::new(newest) }
    }

    /// The watched catalog itself.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The present view. It is built once per change, because many tasks ask for it while hundreds
    /// of regions open.
    pub(crate) fn now(&self) -> Arc<View> {
        let mut newest = self.newest.lock();
        let catalog_change = *self.catalog.changes().borrow();
        let mut own = self.own.lock();
        if (newest.catalog_change, newest.own_change) != (catalog_change, own.changes) {
            let mut view = View {
                tables: self.catalog.tables(),
                regions: self.catalog.regions(),
                servers: self.catalog.servers(),
            };
            own.lay_over(&mut view);
            let view = Arc::new(view);
            *newest = Newest { catalog_change, own_change: own.changes, view };
        }
        Arc::clone(&newest.view)
    }

    /// The present record of one region.
    pub(crate) fn region(&self, name: EncodedRegionName) -> Option<SharedRegion> {
        let watched = self.catalog.region(name);
        let own = self.own.lock().regions.get(&name).cloned();
        watched.into_iter().chain(own).max_by_key(|region| region.zxid)
    }

    /// The live region servers.
    pub(crate) fn servers(&self) -> BTreeMap<ServerName, pb::ServerRecord> {
        let mut servers = self.catalog.servers();
        let own = self.own.lock();
        servers.retain(|server, _| !own.marked_dead.contains(server));
        servers
    }

    /// Records region records that this master has just written or read.
    pub(crate) fn learn(&self, regions: impl IntoIterator<Item = SharedRegion>) {
        let mut own = self.own.lock();
        for region in regions {
            let name = region.record.encoded_name();
            if own.regions.get(&name).is_none_or(|known| known.zxid < region.zxid) {
                own.regions.insert(name, region);
                own.changes += 1;
            }
        }
    }

    /// Forgets regions that this master has just deleted.
    pub(crate) fn forget(&self, regions: &[EncodedRegionName]) {
        let mut own = self.own.lock();
        for name in regions {
            own.regions.remove(name);
        }
        own.changes += 1;
    }

    /// Records the record of a table that this master has just read.
    pub(crate) fn learn_table(&self, table: Versioned<TableRecord>) {
        let mut own = self.own.lock();
        if own.learn_table(table) {
            own.changes += 1;
        }
    }

    /// Forgets the record of a table that no longer exists.
    pub(crate) fn forget_table(&self, table: &TableName) {
        let mut own = self.own.lock();
        if own.tables.remove(table).is_some() {
            own.changes += 1;
        }
    }

    /// Records that `server` is dead. Its name is never used again.
    pub(crate) fn mark_dead(&self, server: ServerName) {
        let mut own = self.own.lock();
        own.marked_dead.insert(server);
        own.changes += 1;
    }

    /// Records what Kubernetes knows about all pods of region servers.
    pub(crate) fn learn_pods(&self, pods: BTreeMap<String, pb::Pod>) {
        let mut own = self.own.lock();
        if own.pods != pods {
            own.pods = pods;
            own.changes += 1;
        }
    }

    /// Waits at most `wait` until `is_so` holds, which is evaluated after each change. Returns
    /// whether it holds.
    pub(crate) async fn until(&self, wait: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let mut changes = self.catalog.changes();
        let deadline = Instant::now() + wait;
        loop {
            changes.borrow_and_update();
            if is_so(self) {
                return true;
            }
            match timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                // The catalog has ended with the session, so nothing will change any more.
                Ok(Err(_)) => {
                    tokio::time::sleep_until(deadline).await;
                    return is_so(self);
                }
                Err(_) => return is_so(self),
            }
        }
    }

    /// Waits until `server` is known to be dead.
    pub(crate) async fn death_of(&self, server: &ServerName) {
        while !self.until(DEATH_WAIT, |views| !views.lives(server)).await {}
    }

    fn lives(&self, server: &ServerName) -> bool {
        self.servers().contains_key(server)
    }
}

/// How long a single wait for a death lasts before it is repeated.
const DEATH_WAIT: Duration = Duration::from_secs(60);

/// The uid of the pod that a process runs in. Outside of pods, the whole instance.
pub(crate) fn pod_uid(instance: &str) -> &str {
    instance.split_once('/').map_or(instance, |(uid, _)| uid)
}

// === impl Own ===

impl Own {
    /// Records the record of a table, unless a later one is known: two tasks may read the record,
    /// and report it in the other order. Returns whether anything has changed.
    fn learn_table(&mut self, table: Versioned<TableRecord>) -> bool {
        let name = table.record.descriptor.name.clone();
        let is_later = self.tables.get(&name).is_none_or(|known| known.zxid < table.zxid);
        if is_later {
            self.tables.insert(name, table);
        }
        is_later
    }

    fn lay_over(&mut self, view: &mut View) {
        self.regions.retain(|name, own| match view.regions.get(name) {
            Some(watched) => watched.zxid < own.zxid,
            None => true,
        });
        for (name, own) in &self.regions {
            view.regions.insert(*name, own.clone());
        }
        self.tables.retain(|name, own| match view.tables.get(name) {
            Some(watched) => watched.zxid < own.zxid,
            None => true,
        });
        for (name, own) in &self.tables {
            view.tables.insert(name.clone(), own.clone());
        }
        self.marked_dead.retain(|server| view.servers.contains_key(server));
        for server in &self.marked_dead {
            view.servers.remove(server);
        }
        for record in view.servers.values_mut() {
            if let Some(pod) = self.pods.get(pod_uid(&record.instance)) {
                record.draining |= pod.draining;
                if !pod.rack.is_empty() {
                    record.rack.clone_from(&pod.rack);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{server, view};
    use basalt_model::TableState;

    #[test]
    fn own_writes_are_seen_until_the_catalog_is_newer() {
        let mut own = Own::default();
        let watched = view(&["a"], 1);
        let mut shared = Arc::clone(watched.regions.values().next().unwrap());
        let written = Arc::make_mut(&mut shared);
        let name = written.record.encoded_name();
        written.record = written.record.assigned_to(server("b"));
        written.zxid += 5;
        own.regions.insert(name, Arc::clone(&shared));

        let mut seen = watched.clone();
        own.lay_over(&mut seen);
        assert_eq!(seen.regions[&name], shared);

        let mut newer = watched;
        Arc::make_mut(newer.regions.get_mut(&name).unwrap()).zxid += 6;
        let mut seen = newer.clone();
        own.lay_over(&mut seen);
        assert_eq!(seen.regions, newer.regions);
        assert!(own.regions.is_empty());
    }

    #[test]
    fn a_table_that_was_read_is_seen_until_the_catalog_is_newer() {
        let watched = view(&["a"], 1);
        let mut read = watched.tables.values().next().unwrap().clone();
        read.record.state = TableState::Disabling;
        (read.version, read.zxid) = (read.version + 1, read.zxid + 1);
        let mut own = Own::default();
        let name = read.record.descriptor.name.clone();
        own.tables.insert(name.clone(), read.clone());
        let mut seen = watched.clone();
        own.lay_over(&mut seen);
        assert_eq!(seen.tables[&name], read);
        let mut newer = watched;
        newer.tables.get_mut(&name).unwrap().zxid = read.zxid + 1;
        own.lay_over(&mut newer);
        assert_eq!(newer.table_state(&name), Some(TableState::Enabled));
        assert!(own.tables.is_empty());
    }

    #[test]
    fn an_earlier_record_of_a_table_replaces_no_later_one() {
        let watched = view(&["a"], 1);
        let mut read = watched.tables.values().next().unwrap().clone();
        read.record.state = TableState::Disabling;
        read.zxid += 1;
        let mut own = Own::default();
        assert!(own.learn_table(read.clone()));
        assert!(!own.learn_table(watched.tables.values().next().unwrap().clone()));
        let mut seen = watched.clone();
        own.lay_over(&mut seen);
        assert_eq!(seen.tables[&read.record.descriptor.name], read);
    }

    #[test]
    fn a_buried_server_is_dead_before_the_catalog_knows() {
        let mut own = Own::default();
        own.marked_dead.insert(server("a"));
        let mut seen = view(&["a", "b"], 0);
        own.lay_over(&mut seen);
        assert!(!seen.lives(&server("a")) && seen.lives(&server("b")));
        let mut seen = view(&["b"], 0);
        own.lay_over(&mut seen);
        assert!(own.marked_dead.is_empty());
    }
    #[test]
    fn what_kubernetes_knows_of_a_pod_goes_before_what_its_process_says() {
        let record = |instance: &str, rack: &str| pb::ServerRecord {
            instance: instance.to_owned(),
            rack: rack.to_owned(),
            ..Default::default()
        };
        let pod = |uid: &str, rack: &str, draining| {
            let (uid, rack) = (uid.to_owned(), rack.to_owned());
            (uid.clone(), pb::Pod { uid, rack, draining })
        };
        let mut seen = view(&[], 0);
        for (name, instance) in [("a", "u1/1-2"), ("b", "u2/1-2"), ("c", "u3/1-2")] {
            seen.servers.insert(server(name), record(instance, "own"));
        }
        let own = &mut Own::default();
        own.pods = [pod("u1", "z1", true), pod("u2", "", false)].into();
        own.lay_over(&mut seen);
        let rack = |name: &str| {
            let record = &seen.servers[&server(name)];
            (record.rack.as_str(), record.draining)
        };
        assert_eq!(
            [rack("a"), rack("b"), rack("c")],
            [("z1", true), ("own", false), ("own", false)]
        );
    }
}
