//! Reads of a sealed log that several regions share.
//!
//! The edits of a region are scattered over a log. All regions of a dead server that open on one
//! server need the same stretches of the log at about the same time. If each read is a round trip
//! to another machine, each stretch is read once, for the region that needs it first, and kept for
//! the others for a while.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use basalt_fs::ReadFile;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// The stretches read from the logs of one server.
#[derive(Default)]
pub struct SharedReads(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    logs: usize,
    /// Oldest first.
    stretches: VecDeque<(StretchId, Stretch)>,
}

/// The number of a log among those that share reads, and of a stretch in it.
type StretchId = (usize, u64);

/// Empty while it is being read.
type Stretch = Arc<OnceCell<Bytes>>;

struct SharedLog {
    log: Arc<dyn ReadFile>,
    number: usize,
    shared: Arc<SharedReads>,
}

/// The length of a stretch, in bytes.
const STRETCH_BYTES: u64 = 1 << 20;
/// How many stretches are kept, over all logs. This bounds how far apart in the logs regions may be
/// that are replayed at the same time.
const STRETCHES_MAX: usize = 64;
/// How many stretches one reader reads at the same time.
const READ_AT_ONCE: usize = 4;

// === impl SharedReads ===

impl SharedReads {
    /// Wraps a log so that it is read in shared stretches, if each read is a round trip.
    pub(super) fn share(self: &Arc<Self>, log: Arc<dyn ReadFile>) -> Arc<dyn ReadFile> {
        if !log.is_far() {
            return log;
        }
        let mut kept = self.0.lock();
        kept.logs += 1;
        Arc::new(SharedLog { log, number: kept.logs, shared: Arc::clone(self) })
    }

    fn stretch(&self, id: StretchId) -> Stretch {
        let stretches = &mut self.0.lock().stretches;
        if let Some((_, stretch)) = stretches.iter().find(|(kept, _)| *kept == id) {
            return Arc::clone(stretch);
        }
        if stretches.len() == STRETCHES_MAX {
            stretches.pop_front();
        }
        let stretch = Stretch::default();
        stretches.push_back((id, Arc::clone(&stretch)));
        stretch
    }
}

// === impl SharedLog ===

impl SharedLog {
    async fn stretch(&self, number: u64) -> basalt_fs::Result<Bytes> {
        let stretch = self.shared.stretch((self.number, number));
        let read = stretch.get_or_try_init(|| {
            let start = number * STRETCH_BYTES;
            let length = STRETCH_BYTES.min(self.length().saturating_sub(start));
            self.log.read_at(start, length as usize)
        });
        Ok(read.await?.clone())
    }
}

#[async_trait]
impl ReadFile for SharedLog {
    async fn read_at(&self, offset: u64, length: usize) -> basalt_fs::Result<Bytes> {
        let end = offset.saturating_add(length as u64);
        self.read_ranges(std::slice::from_ref(&(offset..end))).await
    }

    async fn read_ranges(&self, ranges: &[Range<u64>]) -> basalt_fs::Result<Bytes> {
        if ranges.iter().any(|range| range.end > self.length()) {
            // This read fails, with an error that names the end of the file.
            return self.log.read_ranges(ranges).await;
        }
        let pieces: Vec<_> = ranges.iter().cloned().flat_map(pieces).collect();
        let mut numbers: Vec<_> = pieces.iter().map(|(number, _)| *number).collect();
        numbers.dedup();
        let reading = numbers
            .into_iter()
            .map(async |number| self.stretch(number).await.map(|stretch| (number, stretch)));
        let mut read = stream::iter(reading).buffered(READ_AT_ONCE);
        let mut bytes = BytesMut::new();
        let mut current = None;
        for (number, place) in pieces {
            while current.as_ref().is_none_or(|(current, _)| *current != number) {
                let next = read.next().await.transpose()?;
                current = Some(next.unwrap_or((number, Bytes::new())));
            }
            let stretch = current.as_ref().map_or(&[][..], |(_, stretch)| stretch);
            // Stretches extend to the end of the file, and no range goes beyond it.
            bytes.extend_from_slice(stretch.get(place).unwrap_or_default());
        }
        Ok(bytes.freeze())
    }

    fn length(&self) -> u64 {
        self.log.length()
    }

    fn is_far(&self) -> bool {
        true
    }
}

/// Splits a range into pieces of stretches: the number of each stretch, and the range within it.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut next = range.start;
    std::iter::from_fn(move || {
        let number = next / STRETCH_BYTES;
        let start = number * STRETCH_BYTES;
        let end = range.end.min(start + STRETCH_BYTES);
        let place = (next - start) as usize..end.saturating_sub(start) as usize;
        let is_left = next < range.end;
        next = end;
        is_left.then_some((number, place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A remote log that counts its reads, of which the first fails.
    struct FarLog {
        contents: Bytes,
        reads: AtomicUsize,
    }

    #[async_trait]
    impl ReadFile for FarLog {
        async fn read_at(&self, offset: u64, length: usize) -> basalt_fs::Result<Bytes> {
            tokio::task::yield_now().await;
            let end = offset as usize + length;
            let is_first = self.reads.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first || end > self.contents.len() {
                return Err(basalt_fs::Error::EndOfFile { path: "/log".into(), offset, length });
            }
            Ok(self.contents.slice(offset as usize..end))
        }

        fn length(&self) -> u64 {
            self.contents.len() as u64
        }

        fn is_far(&self) -> bool {
            true
        }
    }

    fn shared(length: usize) -> (Arc<FarLog>, Arc<dyn ReadFile>) {
        let contents = (0..length).map(|i| (i % 253) as u8).collect();
        let log = Arc::new(FarLog { contents, reads: AtomicUsize::new(0) });
        (Arc::clone(&log), Arc::new(SharedReads::default()).share(log))
    }

    #[tokio::test]
    async fn each_stretch_is_read_once_for_all() {
        let length = 3 * STRETCH_BYTES as usize + 10;
        let (log, file) = shared(length);
        assert!(file.read_at(0, 1).await.is_err(), "the first read fails, and is made again");
        let ranges = |start: u64| {
            let edges = [0, STRETCH_BYTES - start - 1, 2 * STRETCH_BYTES, length as u64 - 9];
            edges.map(|edge| edge + start..edge + start + 5)
        };
        let readers = (0..4).map(async |start| (start, file.read_ranges(&ranges(start)).await));
        for (start, read) in futures::future::join_all(readers).await {
            let places = ranges(start).map(|range| range.start as usize..range.end as usize);
            let expected: Vec<u8> =
                places.into_iter().flat_map(|place| log.contents[place].to_vec()).collect();
            assert_eq!(&read.unwrap()[..], expected, "from {start}");
        }
        assert_eq!(log.reads.load(Ordering::Relaxed), 1 + 4);
        assert!(file.read_at(length as u64 - 1, 2).await.is_err());
        assert_eq!(&file.read_at(length as u64, 0).await.unwrap()[..], b"");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let stretches = STRETCHES_MAX + 3;
        let (log, file) = shared(stretches * STRETCH_BYTES as usize);
        assert!(file.read_at(0, 1).await.is_err());
        for _ in 0..2 {
            for number in 0..stretches as u64 {
                file.read_at(number * STRETCH_BYTES, 1).await.unwrap();
            }
        }
        assert_eq!(log.reads.load(Ordering::Relaxed), 1 + 2 * stretches);
    }
}
