//! Keeps a [`Catalog`] up to date with the coordinator through persistent watches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{EncodedRegionName, ServerName, TableName};
use basalt_zk::proto::{AddWatchMode, ErrorCode, EventType};
use basalt_zk::{Client, WatchedEvent};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::state::{CatalogState, Versioned};
use crate::{Catalog, Error, Nodes, REGION_BUCKETS, RegionRecord, TableRecord, pb, records};

/// How many reads are in flight at once.
const READS_AT_ONCE: usize = 64;
/// The pause after a read that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How many callers may wait at once for the copy to catch up.
const WAITING_MAX: usize = 64;

/// What has to be read again.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Dirty {
    Everything,
    Servers,
    Node(String),
}

struct Follower {
    client: Client,
    nodes: Nodes,
    state: Arc<RwLock<CatalogState>>,
    changes: watch::Sender<u64>,
    events: [mpsc::Receiver<WatchedEvent>; 4],
    waiting: mpsc::Receiver<oneshot::Sender<()>>,
}

/// The follower's next task.
enum FollowStep {
    TakeIn(WatchedEvent),
    /// A caller waits until all events that have arrived are applied.
    Answer(oneshot::Sender<()>),
    /// The session is over.
    End,
}

/// Reads all records, and keeps them up to date while the session of `client` lives.
///
/// # Errors
/// The coordinator does not answer, or holds a record that cannot be decoded.
pub async fn follow(client: Client, nodes: Nodes) -> Result<Catalog, Error> {
    let state = Arc::new(RwLock::new(CatalogState::default()));
    let (changes, changed) = watch::channel(0);
    let events = [
        client.add_watch(&nodes.regions(), AddWatchMode::PersistentRecursive).await?,
        client.add_watch(&nodes.tables(), AddWatchMode::PersistentRecursive).await?,
        client.add_watch(&nodes.servers(), AddWatchMode::Persistent).await?,
        client.add_watch(&nodes.master(), AddWatchMode::Persistent).await?,
    ];
    let (ask, waiting) = mpsc::channel(WAITING_MAX);
    let catalog = Catalog {
        state: Arc::clone(&state),
        changes: changed,
        waiting: ask,
        client: client.clone(),
        nodes: nodes.clone(),
    };
    let follower = Follower { client, nodes, state, changes, events, waiting };
    follower.read_everything().await?;
    tokio::spawn(follower.run());
    Ok(catalog)
}

// === impl Follower ===

impl Follower {
    async fn run(mut self) {
        let mut dirty = BTreeSet::new();
        let mut waiting = Vec::new();
        loop {
            if dirty.is_empty() && waiting.is_empty() {
                match self.next_step().await {
                    FollowStep::TakeIn(event) => self.note(event, &mut dirty),
                    FollowStep::Answer(asked) => waiting.push(asked),
                    FollowStep::End => return,
                }
            }
            // Collect the callers before the events: the events that they wait for have then
            // arrived. While the coordinator does not answer, callers give up and others come.
            waiting.retain(|asked: &oneshot::Sender<()>| !asked.is_closed());
            while waiting.len() < WAITING_MAX
                && let Ok(asked) = self.waiting.try_recv()
            {
                waiting.push(asked);
            }
            while let Some(event) = self.waiting_event() {
                self.note(event, &mut dirty);
            }
            match self.read(&dirty).await {
                Ok(()) => {
                    if !dirty.is_empty() {
                        self.changes.send_modify(|count| *count += 1);
                    }
                    dirty.clear();
                    for asked in waiting.drain(..) {
                        // The caller may have stopped waiting.
                        let _ = asked.send(());
                    }
                }
                Err(Error::Coordinator(error)) if error.is_session_over() => return,
                Err(error) => {
                    warn!(%error, "could not update the catalog; retrying");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn next_step(&mut self) -> FollowStep {
        let [regions, tables, servers, master] = &mut self.events;
        let event = tokio::select! {
            biased;
            event = servers.recv() => event,
            event = master.recv() => event,
            event = regions.recv() => event,
            event = tables.recv() => event,
            asked = self.waiting.recv() => return match asked {
                Some(asked) => FollowStep::Answer(asked),
                // All handles of the catalog are dropped.
                None => FollowStep::End,
            },
        };
        event.map_or(FollowStep::End, FollowStep::TakeIn)
    }

    fn waiting_event(&mut self) -> Option<WatchedEvent> {
        self.events.iter_mut().find_map(|events| events.try_recv().ok())
    }

    fn note(&self, event: WatchedEvent, dirty: &mut BTreeSet<Dirty>) {
        match event {
            WatchedEvent::Node { kind, path } => {
                if path == self.nodes.servers() {
                    dirty.insert(Dirty::Servers);
                } else if kind != EventType::NodeChildrenChanged {
                    dirty.insert(Dirty::Node(path));
                }
            }
            WatchedEvent::Reconnected | WatchedEvent::Missed => {
                dirty.insert(Dirty::Everything);
            }
            WatchedEvent::Disconnected | WatchedEvent::Expired | WatchedEvent::Closed => {}
        }
    }

    async fn read(&self, dirty: &BTreeSet<Dirty>) -> Result<(), Error> {
        if dirty.contains(&Dirty::Everything) {
            return self.read_everything().await;
        }
        if dirty.contains(&Dirty::Servers) {
            self.read_servers().await?;
        }
        let paths = dirty.iter().filter_map(|dirty| match dirty {
            Dirty::Node(path) => Some(path.clone()),
            Dirty::Everything | Dirty::Servers => None,
        });
        self.read_nodes(paths.collect()).await
    }

    async fn read_everything(&self) -> Result<(), Error> {
        let (cluster, _) = self.client.get_data(&self.nodes.cluster()).await?;
        let cluster: pb::ClusterRecord = records::decode("cluster", cluster)?;
        self.state.write().cluster_id = cluster.cluster_id;
        self.read_servers().await?;
        let mut paths = vec![self.nodes.master()];
        let buckets = (0..REGION_BUCKETS).map(|bucket| {
            let bucket = self.nodes.region_bucket(bucket as u8);
            async move { (self.children(&bucket).await, bucket) }
        });
        let mut buckets = futures::stream::iter(buckets).buffered(READS_AT_ONCE);
        while let Some((children, bucket)) = buckets.next().await {
            paths.extend(children?.into_iter().map(|name| format!("{bucket}/{name}")));
        }
        let tables = self.nodes.tables();
        let children = self.children(&tables).await?;
        paths.extend(children.into_iter().map(|name| format!("{tables}/{name}")));
        self.forget_all_but(&paths);
        self.read_nodes(paths).await
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, Error> {
        match self.client.get_children(path).await {
            Ok((children, _)) => Ok(children),
            Err(error) if error.code() == Some(ErrorCode::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn forget_all_but(&self, paths: &[String]) {
        let paths: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
        let mut state = self.state.write();
        let is_gone = |path: String| !paths.contains(path.as_str());
        let gone: Vec<EncodedRegionName> = state
            .regions
            .keys()
            .copied()
            .filter(|name| is_gone(self.nodes.region(*name)))
            .collect();
        gone.into_iter().for_each(|name| state.remove_region(name));
        state.remove_tables(|name| !paths.contains(self.nodes.table(name).as_str()));
    }

    async fn read_servers(&self) -> Result<(), Error> {
        let names = self.children(&self.nodes.servers()).await?;
        let living: BTreeSet<ServerName> =
            names.iter().filter_map(|name| name.parse().ok()).collect();
        let known: BTreeSet<ServerName> = self.state.read().servers.keys().cloned().collect();
        self.state.write().servers.retain(|server, _| living.contains(server));
        for server in living.difference(&known) {
            let path = self.nodes.server(server);
            let Some((data, _)) = self.client.find_data(&path).await? else { continue };
            match records::decode("server", data) {
                Ok(record) => {
                    self.state.write().servers.insert(server.clone(), record);
                }
                Err(error) => warn!(%error, path, "ignoring a record that cannot be decoded"),
            }
        }
        Ok(())
    }

    async fn read_nodes(&self, paths: Vec<String>) -> Result<(), Error> {
        let found = self.client.get_data_of_all(&paths).await?;
        for (path, found) in paths.into_iter().zip(found) {
            let found = found.map(|(data, stat)| (data, stat.version, stat.mzxid.0));
            if let Err(error) = self.take_in(&path, found) {
                // One bad record must not hide all others.
                warn!(%error, path, "ignoring a record that cannot be decoded");
            }
        }
        Ok(())
    }

    fn take_in(&self, path: &str, found: Option<(Bytes, i32, i64)>) -> Result<(), Error> {
        let name = path.rsplit('/').next().unwrap_or_default();
        if path == self.nodes.master() {
            let decode = |(data, ..): (Bytes, i32, i64)| records::decode("master", data);
            self.state.write().master = found.map(decode).transpose()?;
        } else if path.starts_with(&self.nodes.tables()) {
            match found {
                Some((data, version, zxid)) => {
                    let record = TableRecord::decode(&data)?;
                    self.state.write().put_table(Versioned { record, version, zxid });
                }
                None => {
                    let is_it = |table: &TableName| self.nodes.table(table) == path;
                    self.state.write().remove_tables(is_it);
                }
            }
        } else if let Ok(region) = name.parse::<EncodedRegionName>() {
            match found {
                Some((data, version, zxid)) => {
                    let record = RegionRecord::decode(&data)?;
                    debug!(%region, state = ?record.state, epoch = %record.epoch, "region record");
                    self.state.write().put_region(region, Versioned { record, version, zxid });
                }
                None => self.state.write().remove_region(region),
            }
        }
        Ok(())
    }
}
