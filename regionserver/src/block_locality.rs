//! Which nodes of the storage hold the store files of the regions. This is looked up in the
//! background, shown in metrics, and reported to the master. When a region needs another server,
//! the master prefers servers that have its blocks.
//!
//! This costs one call for each new file, some time after it was created, and another one from time
//! to time, because blocks move. If a lookup fails, the locations stay unknown. Nothing waits for
//! them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_fs::{NodeName, SharedFileSystem};
use basalt_model::EncodedRegionName;
use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use crate::server::Server;

/// The locations that are known; never changed, only replaced.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ServerLocality {
    /// The node on this machine.
    pub(crate) own: Option<NodeName>,
    pub(crate) regions: BTreeMap<EncodedRegionName, RegionPlaces>,
}

/// The locations of the store files of one region, as far as they are known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RegionPlaces {
    /// The total length of those files.
    pub(crate) bytes: u64,
    pub(crate) by_node: BTreeMap<NodeName, u64>,
}

/// A store file that is in use.
#[derive(Debug)]
struct File {
    length: u64,
    /// When it was first seen.
    since: Instant,
    /// When it was last looked up, and the result.
    found: Option<(Instant, BTreeMap<NodeName, u64>)>,
}

/// How often to look for new files.
const INTERVAL: Duration = Duration::from_secs(5);
/// The minimum age of a file: not all replicas of a new one are known before the nodes have
/// reported them.
const REST: Duration = Duration::from_secs(4);
/// How long before a file is looked up again.
const AGAIN: Duration = Duration::from_secs(60 * 60);
/// How many files are looked up in one round, and how many at a time.
const FILES_IN_A_ROW: usize = 256;
const FILES_AT_ONCE: usize = 4;
/// How many nodes of a region are reported to the master, in addition to our own.
const NODES_REPORTED: usize = 3;
/// How many regions one message to the master contains.
const REGIONS_PER_MESSAGE: usize = 256;

/// Keeps the locations up to date while the server runs. Returns if the storage has no nodes.
pub(crate) async fn watch(server: Arc<Server>) {
    let mut files = BTreeMap::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        // Opening regions takes precedence.
        if server.is_opening() {
            continue;
        }
        let in_use = in_use(&server);
        keep_in_use(&mut files, &in_use, Instant::now());
        if !look_up(&server.shared.files, &mut files).await {
            return;
        }
        let places =
            ServerLocality { own: server.shared.files.own_node(), regions: sum(&in_use, &files) };
        server.block_locality.send_if_modified(|known| {
            let is_news = **known != places;
            if is_news {
                *known = Arc::new(places);
            }
            is_news
        });
    }
}

/// The store files of each served region, with their lengths.
type InUse = BTreeMap<EncodedRegionName, Vec<(PathBuf, u64)>>;

fn in_use(server: &Server) -> InUse {
    let regions = server.regions();
    regions.iter().map(|served| (served.region.encoded_name, served.region.store_files())).collect()
}

fn keep_in_use(files: &mut BTreeMap<PathBuf, File>, in_use: &InUse, now: Instant) {
    let mut kept = BTreeMap::new();
    for (path, length) in in_use.values().flatten() {
        let known = files.remove(path);
        let file = known.unwrap_or(File { length: *length, since: now, found: None });
        kept.insert(path.clone(), file);
    }
    *files = kept;
}

/// Looks up the files that are due. Returns false if the storage has no nodes.
async fn look_up(storage: &SharedFileSystem, files: &mut BTreeMap<PathBuf, File>) -> bool {
    let due = due(files, Instant::now());
    let asking = due.into_iter().map(|path| async move {
        let found = storage.block_bytes(&path).await;
        (path, found)
    });
    let asking: Vec<_> = asking.collect();
    let mut answers = futures::stream::iter(asking).buffered(FILES_AT_ONCE);
    while let Some((path, answer)) = answers.next().await {
        match answer {
            Ok(None) => return false,
            Ok(Some(by_node)) => {
                if let Some(file) = files.get_mut(&path) {
                    file.found = Some((Instant::now(), by_node));
                }
            }
            // A compaction has removed it meanwhile.
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                debug!(%error, "the block locations of store files are unknown");
                break;
            }
        }
    }
    true
}

/// The files to look up; those that have never been looked up come first.
fn due(files: &BTreeMap<PathBuf, File>, now: Instant) -> Vec<PathBuf> {
    let is_due = |file: &File| match &file.found {
        None => now.saturating_duration_since(file.since) >= REST,
        Some((at, _)) => now.saturating_duration_since(*at) >= AGAIN,
    };
    let mut due: Vec<(&Path, &File)> =
        files.iter().filter(|(_, f)| is_due(f)).map(|(path, f)| (path.as_path(), f)).collect();
    due.sort_by_key(|(_, file)| file.found.is_some());
    due.into_iter().take(FILES_IN_A_ROW).map(|(path, _)| path.to_owned()).collect()
}

fn sum(
    in_use: &InUse,
    files: &BTreeMap<PathBuf, File>,
) -> BTreeMap<EncodedRegionName, RegionPlaces> {
    let mut regions = BTreeMap::new();
    for (region, paths) in in_use {
        let mut places = RegionPlaces::default();
        for file in paths.iter().filter_map(|(path, _)| files.get(path)) {
            let Some((_, by_node)) = &file.found else { continue };
            places.bytes += file.length;
            for (node, bytes) in by_node {
                *places.by_node.entry(node.clone()).or_default() += bytes;
            }
        }
        if places.bytes > 0 {
            regions.insert(*region, places);
        }
    }
    regions
}

// === impl ServerLocality ===

impl ServerLocality {
    /// How many bytes of store files are known to be on our own node, and for how many the location
    /// is known at all.
    pub(crate) fn own_and_all_bytes(&self) -> (u64, u64) {
        let all = self.regions.values().map(|places| places.bytes).sum();
        let own = self.regions.values().map(|places| places.on(self.own.as_ref())).sum();
        (own, all)
    }
}

// === impl RegionPlaces ===

impl RegionPlaces {
    /// How many bytes are on `node`.
    fn on(&self, node: Option<&NodeName>) -> u64 {
        node.and_then(|node| self.by_node.get(node)).copied().unwrap_or(0)
    }

    /// The message that reports it to the master.
    fn message(&self, region: &EncodedRegionName, own: Option<&NodeName>) -> pb::RegionBlocks {
        let mut nodes: Vec<(&NodeName, u64)> =
            self.by_node.iter().map(|(node, bytes)| (node, *bytes)).collect();
        nodes.sort_by_key(|(node, bytes)| (Some(*node) != own, std::cmp::Reverse(*bytes)));
        let has_own = nodes.first().is_some_and(|(node, _)| Some(*node) == own);
        nodes.truncate(NODES_REPORTED + usize::from(has_own));
        let nodes =
            nodes.into_iter().map(|(node, bytes)| pb::NodeBytes { node: node.to_string(), bytes });
        let region = region.digest().to_vec();
        pb::RegionBlocks { region, bytes: self.bytes, nodes: nodes.collect() }
    }
}

/// The messages of a living server to a master: first its name, then each change. Never ends.
pub(crate) fn words(server: Arc<Server>) -> impl Stream<Item = pb::Alive> {
    let server_name = server.name.to_string();
    let mut changes = server.block_locality.subscribe();
    // This master has not received what was reported to another one.
    changes.mark_changed();
    let first = pb::Alive { server_name: server_name.clone(), ..Default::default() };
    let words = Words { server_name, changes, reported: Arc::default(), queue: [first].into() };
    futures::stream::unfold(words, |mut words| async move {
        let word = words.next().await;
        Some((word, words))
    })
}

/// The pending messages of one stream.
struct Words {
    server_name: String,
    changes: watch::Receiver<Arc<ServerLocality>>,
    reported: Arc<ServerLocality>,
    queue: VecDeque<pb::Alive>,
}

// === impl Words ===

impl Words {
    async fn next(&mut self) -> pb::Alive {
        loop {
            if let Some(word) = self.queue.pop_front() {
                return word;
            }
            if self.changes.changed().await.is_err() {
                // The server has ended, and the stream is about to end.
                std::future::pending::<()>().await;
            }
            let known = Arc::clone(&*self.changes.borrow_and_update());
            self.queue = news(&self.server_name, &self.reported, &known);
            self.reported = known;
        }
    }
}

/// The messages for a master that has received `reported` and is to receive `known`.
fn news(
    server_name: &str,
    reported: &ServerLocality,
    known: &ServerLocality,
) -> VecDeque<pb::Alive> {
    let own = known.own.as_ref();
    // The nodes that are reported for a region depend on our own node.
    let has_moved = reported.own != known.own;
    let changed = known
        .regions
        .iter()
        .filter(|(region, places)| has_moved || reported.regions.get(*region) != Some(*places));
    let regions: Vec<_> = changed.map(|(region, places)| places.message(region, own)).collect();
    let word = |regions: &[pb::RegionBlocks]| pb::Alive {
        server_name: server_name.to_owned(),
        node: own.map(ToString::to_string).unwrap_or_default(),
        regions: regions.to_vec(),
        ..Default::default()
    };
    if regions.is_empty() && has_moved {
        return [word(&[])].into();
    }
    regions.chunks(REGIONS_PER_MESSAGE).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(number: u8) -> EncodedRegionName {
        EncodedRegionName::from_digest([number; 16])
    }

    fn by_node(bytes: &[(&str, u64)]) -> BTreeMap<NodeName, u64> {
        bytes.iter().map(|(node, bytes)| (NodeName::new(*node), *bytes)).collect()
    }

    /// A region: its number, its bytes, and how many of them are on each node.
    type Lies<'a> = (u8, u64, &'a [(&'a str, u64)]);

    fn places(own: &str, regions: &[Lies<'_>]) -> ServerLocality {
        let regions = regions.iter().map(|(number, bytes, nodes)| {
            (region(*number), RegionPlaces { bytes: *bytes, by_node: by_node(nodes) })
        });
        ServerLocality { own: NodeName::reported(own), regions: regions.collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_file_is_looked_up_once_after_a_rest_and_again_much_later() {
        let (mut files, paths) = (BTreeMap::new(), vec![("/a".into(), 7), ("/b".into(), 8)]);
        let in_use: InUse = [(region(1), paths)].into();
        keep_in_use(&mut files, &in_use, Instant::now());
        assert_eq!(due(&files, Instant::now()), Vec::<PathBuf>::new());
        tokio::time::advance(REST).await;
        assert_eq!(due(&files, Instant::now()).len(), 2);
        let file = files.get_mut(Path::new("/a")).unwrap();
        file.found = Some((Instant::now(), by_node(&[("n", 7)])));
        keep_in_use(&mut files, &in_use, Instant::now());
        assert_eq!(due(&files, Instant::now()), [PathBuf::from("/b")]);
        tokio::time::advance(AGAIN).await;
        assert_eq!(due(&files, Instant::now()), ["/b", "/a"].map(PathBuf::from));
        keep_in_use(&mut files, &InUse::new(), Instant::now());
        assert!(files.is_empty(), "files that went are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn only_files_of_which_it_is_known_count() {
        let now = Instant::now();
        let file = |length, found: Option<&[(&str, u64)]>| {
            let found = found.map(|nodes| (now, by_node(nodes)));
            File { length, since: now, found }
        };
        let files = [
            ("/a".into(), file(10, Some(&[("n", 10), ("m", 4)]))),
            ("/b".into(), file(5, Some(&[("n", 5)]))),
            ("/c".into(), file(100, None)),
        ];
        let paths = |names: &[&str]| names.iter().map(|name| (name.into(), 0)).collect();
        let in_use = [(region(1), paths(&["/a", "/b", "/c"])), (region(2), paths(&["/c"]))];
        let regions = sum(&in_use.into(), &files.into());
        let known = ServerLocality { own: NodeName::reported("m"), regions };
        assert_eq!(known, places("m", &[(1, 15, &[("n", 15), ("m", 4)])]));
        assert_eq!(known.own_and_all_bytes(), (4, 15));
        assert_eq!(ServerLocality { own: None, ..known }.own_and_all_bytes(), (0, 15));
        assert_eq!(ServerLocality::default().own_and_all_bytes(), (0, 0));
    }

    #[test]
    fn the_report_to_the_master_has_the_nodes_with_the_most_bytes_and_our_own() {
        let nodes: &[_] = &[("a", 1), ("b", 9), ("c", 8), ("d", 7), ("e", 6)];
        let of = |own: &str| {
            let known = places(own, &[(1, 9, nodes)]);
            let word = news("s", &ServerLocality::default(), &known).pop_front().unwrap();
            let blocks = &word.regions[0];
            assert_eq!((&*word.node, &*blocks.region, blocks.bytes), (own, &[1; 16][..], 9));
            blocks.nodes.iter().map(|one| (one.node.clone(), one.bytes)).collect::<Vec<_>>()
        };
        let expected = |nodes: &[(&str, u64)]| {
            nodes.iter().map(|(node, bytes)| ((*node).to_owned(), *bytes)).collect::<Vec<_>>()
        };
        assert_eq!(of("a"), expected(&[("a", 1), ("b", 9), ("c", 8), ("d", 7)]));
        assert_eq!(of("x"), expected(&[("b", 9), ("c", 8), ("d", 7)]));
        assert_eq!(of(""), expected(&[("b", 9), ("c", 8), ("d", 7)]));
    }

    #[test]
    fn only_changes_are_reported_and_in_small_messages() {
        let before = places("n", &[(1, 9, &[("n", 9)]), (2, 9, &[("n", 9)])]);
        assert!(news("s", &before, &before).is_empty());
        let after = places("n", &[(1, 9, &[("n", 9)]), (2, 10, &[("n", 9)])]);
        let word = news("s", &before, &after).pop_front().unwrap();
        assert_eq!(word.regions.len(), 1);
        assert_eq!(word.regions[0].region, [2; 16]);
        let moved = ServerLocality { own: NodeName::reported("m"), ..before.clone() };
        assert_eq!(news("s", &before, &moved)[0].regions.len(), 2);
        let nothing = ServerLocality { own: NodeName::reported("m"), ..ServerLocality::default() };
        assert_eq!(news("s", &ServerLocality::default(), &nothing).len(), 1);
        let mut many = ServerLocality::default();
        for number in 0..REGIONS_PER_MESSAGE as u64 + 1 {
            let mut digest = [0; 16];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            let name = EncodedRegionName::from_digest(digest);
            many.regions.insert(name, RegionPlaces { bytes: 1, by_node: BTreeMap::new() });
        }
        let words = news("s", &ServerLocality::default(), &many);
        assert_eq!(words.iter().map(|word| word.regions.len()).collect::<Vec<_>>(), [256, 1]);
    }
}
