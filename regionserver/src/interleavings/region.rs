//! A region's view while edits arrive, a flush replaces a memstore with a file, and readers take
//! snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_loom::{AtomicUsize, check, thread};
use basalt_model::SequenceId;

use super::sync::{AtomicU64, Ordering};
use super::view::View;

/// How many cells an edit writes.
const CELLS: usize = 2;

/// The cells of a memstore, represented by their edits. Cells are added one by one while readers
/// look.
struct Memory {
    count: AtomicUsize,
    /// Not a lock of loom, so it orders nothing.
    cells: std::sync::Mutex<Vec<SequenceId>>,
}

/// Stands in for the region's own type: one family.
pub(super) struct RegionSnapshot {
    active: Arc<Memory>,
    flushing: Option<Arc<Memory>>,
    file: Vec<SequenceId>,
}

/// Stands in for the region's own type.
pub(super) struct WriteOrder {
    last: SequenceId,
}

struct Region {
    view: View,
    /// The highest edit that was acknowledged to a client.
    acknowledged: AtomicU64,
}

// === impl Memory ===

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), cells: std::sync::Mutex::default() })
    }

    fn insert(&self, edit: SequenceId) {
        self.cells.lock().unwrap().push(edit);
        self.count.fetch_add(1, Ordering::Release);
    }

    fn read(&self, read_point: SequenceId) -> Vec<SequenceId> {
        let count = self.count.load(Ordering::Acquire);
        let cells = self.cells.lock().unwrap();
        cells.iter().take(count).copied().filter(|edit| *edit <= read_point).collect()
    }
}

// === impl Region ===

impl Region {
    fn new() -> Arc<Self> {
        let snapshot = RegionSnapshot { active: Memory::new(), flushing: None, file: Vec::new() };
        let order = WriteOrder { last: SequenceId(0) };
        let view = View::new(snapshot, order, SequenceId(0));
        Arc::new(Self { view, acknowledged: AtomicU64::new(0) })
    }

    /// Like `Region::log`, then `Region::make_visible` once the edit is durable.
    fn write(&self) {
        let edit = {
            let mut order = self.view.lock();
            order.last = order.last.next();
            let snapshot = order.snapshot();
            for _ in 0..CELLS {
                snapshot.active.insert(order.last);
            }
            order.last
        };
        self.view.show(edit);
        self.acknowledged.fetch_max(edit.0, Ordering::AcqRel);
    }

    /// Like `Region::flush`.
    fn flush(&self) {
        {
            let mut order = self.view.lock();
            let snapshot = order.snapshot();
            let (active, flushing) = (Memory::new(), Some(Arc::clone(&snapshot.active)));
            order.replace(RegionSnapshot { active, flushing, file: snapshot.file.clone() });
        }
        // Like `Region::settle`.
        let last = self.view.lock().last;
        self.view.show(last);
        let snapshot = self.view.load_full();
        let written = snapshot.flushing.as_ref().map(|memory| memory.read(SequenceId(u64::MAX)));
        self.view.swap(|snapshot| {
            let file = snapshot.file.iter().copied().chain(written.unwrap_or_default()).collect();
            RegionSnapshot { active: Arc::clone(&snapshot.active), flushing: None, file }
        });
    }

    /// Checks that a snapshot contains everything acknowledged before and all edits up to its read
    /// point, each of them completely.
    fn check(&self) {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let (snapshot, read_point) = self.view.load_with_read_point();
        let memories = snapshot.flushing.iter().chain([&snapshot.active]);
        let in_memory = memories.flat_map(|memory| memory.read(read_point));
        let in_file = snapshot.file.iter().copied().filter(|edit| *edit <= read_point);
        let mut cells: BTreeMap<SequenceId, usize> = BTreeMap::new();
        for edit in in_memory.chain(in_file) {
            *cells.entry(edit).or_default() += 1;
        }
        assert!(cells.values().all(|count| *count == CELLS), "edits by halves: {cells:?}");
        let missing = (1..=acknowledged.max(read_point.0))
            .find(|edit| !cells.contains_key(&SequenceId(*edit)));
        assert_eq!(missing, None, "of {acknowledged} at {read_point:?}: {cells:?}");
    }
}

fn go_on(region: &Arc<Region>, work: fn(&Region)) -> thread::JoinHandle<()> {
    let region = Arc::clone(region);
    thread::spawn(move || work(&region))
}

#[test]
fn a_snapshot_sees_whole_edits_and_all_that_were_acknowledged_while_a_flush_swaps() {
    check(|| {
        let region = Region::new();
        region.write();
        let writer = go_on(&region, Region::write);
        let flush = go_on(&region, Region::flush);
        region.check();
        writer.join().unwrap();
        flush.join().unwrap();
        region.check();
    });
}

#[test]
fn a_flush_and_a_compaction_take_nothing_from_each_other() {
    check(|| {
        let region = Region::new();
        region.write();
        let flush = go_on(&region, Region::flush);
        // A compaction replaces some files with one, and leaves the rest unchanged.
        let compaction = go_on(&region, |region| {
            region.view.swap(|snapshot| {
                let (active, flushing) = (Arc::clone(&snapshot.active), snapshot.flushing.clone());
                RegionSnapshot { active, flushing, file: snapshot.file.clone() }
            });
        });
        flush.join().unwrap();
        compaction.join().unwrap();
        region.check();
        assert!(region.view.load().flushing.is_none());
    });
}

#[test]
fn two_writers_show_their_edits_in_order() {
    check(|| {
        let region = Region::new();
        let writers = [go_on(&region, Region::write), go_on(&region, Region::write)];
        region.check();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(region.view.load_with_read_point().1, SequenceId(2));
        region.check();
    });
}
