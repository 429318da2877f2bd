//! The block cache: decompressed, checked blocks of all store files, bounded by their bytes.
//!
//! A task that requests a block which another task is loading waits for it, so each block is read
//! once. Blocks that were used repeatedly stay longer than those that were used once, so a scan
//! does not empty the cache. Hashes are not seeded and the number of shards is fixed, so that a
//! simulated run can be repeated.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::store_file::{DataBlock, IndexBlock};

/// The expected length of a block, for sizing the table.
const BLOCK_BYTES_EXPECTED: u64 = 64 << 10;
/// The approximate memory of an entry besides its block.
const ENTRY_BYTES: usize = 128;
const SHARDS: usize = 16;

/// Blocks of store files in memory.
#[derive(Debug)]
pub struct BlockCache {
    blocks: Cache<BlockKey, CachedBlock, BlockWeighter, BuildHasherDefault<BlockHasher>>,
    next_file: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Statistics of a cache since it was created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockCacheStatistics {
    /// How often a block was in the cache.
    pub hits: u64,
    /// How often it had to be read.
    pub misses: u64,
    /// How many blocks are in it.
    pub blocks: usize,
    /// How much memory they hold, in bytes.
    pub weight_bytes: u64,
    /// How much memory they may hold, in bytes.
    pub capacity_bytes: u64,
}

/// Identifies a file in the cache: a number that is never assigned twice.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct FileId(u64);

/// The key of a block: its file and its offset there.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BlockKey {
    pub(crate) file: FileId,
    pub(crate) offset: u64,
}

/// A block, decompressed and checked. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum CachedBlock {
    Data(Arc<DataBlock>),
    Index(Arc<IndexBlock>),
    Bloom(Bytes),
}

#[derive(Clone, Debug)]
struct BlockWeighter;

/// Mixes the two numbers of a [`BlockKey`].
#[derive(Clone, Copy, Debug, Default)]
struct BlockHasher(u64);

// === impl BlockCache ===

impl BlockCache {
    /// A cache that holds at most about `capacity_bytes`.
    pub fn new(capacity_bytes: u64) -> Self {
        let blocks = usize::try_from(capacity_bytes / BLOCK_BYTES_EXPECTED).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(capacity_bytes)
            .estimated_items_capacity(blocks.max(1))
            .shards(SHARDS)
            .build();
        let blocks = match options {
            Ok(options) => Cache::with_options(
                options,
                BlockWeighter,
                BuildHasherDefault::default(),
                DefaultLifecycle::default(),
            ),
            // Reached only if the options lack a capacity.
            Err(_) => Cache::with(
                blocks,
                capacity_bytes,
                BlockWeighter,
                BuildHasherDefault::default(),
                DefaultLifecycle::default(),
            ),
        };
        Self {
            blocks,
            next_file: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The statistics since the cache was created.
    pub fn statistics(&self) -> BlockCacheStatistics {
        BlockCacheStatistics {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            blocks: self.blocks.len(),
            weight_bytes: self.blocks.weight(),
            capacity_bytes: self.blocks.capacity(),
        }
    }

    pub(crate) fn next_file_id(&self) -> FileId {
        FileId(self.next_file.fetch_add(1, Ordering::Relaxed))
    }

    /// The block, if it is in the cache.
    pub(crate) fn get(&self, key: BlockKey) -> Option<CachedBlock> {
        let block = self.blocks.get(&key);
        let counter = if block.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        block
    }

    /// The block. `load` loads it if it is neither in the cache nor being loaded.
    pub(crate) async fn get_or_load<E>(
        &self,
        key: BlockKey,
        load: impl Future<Output = Result<CachedBlock, E>>,
    ) -> Result<CachedBlock, E> {
        if let Some(block) = self.blocks.get(&key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(block);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.blocks.get_or_insert_async(&key, load).await
    }

    /// Removes the blocks of a file.
    pub(crate) fn evict(&self, file: FileId) {
        self.blocks.retain(|key, _| key.file != file);
    }
}

// === impl BlockWeighter ===

impl Weighter<BlockKey, CachedBlock> for BlockWeighter {
    fn weight(&self, _: &BlockKey, block: &CachedBlock) -> u64 {
        let block_bytes = match block {
            CachedBlock::Data(block) => block.weight_bytes(),
            CachedBlock::Index(block) => block.weight_bytes(),
            CachedBlock::Bloom(chunk) => chunk.len(),
        };
        (block_bytes + ENTRY_BYTES) as u64
    }
}

// === impl BlockHasher ===

impl Hasher for BlockHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (self.0.rotate_left(29) ^ number).wrapping_mul(ODD);
        self.0 = mixed ^ mixed >> 32;
    }

    fn finish(&self) -> u64 {
        // The table uses the high bits and the shards use the low ones: both must be well mixed.
        let mixed = self.0.wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 33
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cache: &BlockCache) -> BlockKey {
        BlockKey { file: cache.next_file_id(), offset: 0 }
    }

    fn block(length: usize) -> CachedBlock {
        CachedBlock::Bloom(vec![0; length].into())
    }

    #[tokio::test]
    async fn a_block_is_loaded_once_for_all_who_wait() {
        let cache = Arc::new(BlockCache::new(1 << 20));
        let loads = Arc::new(AtomicU64::new(0));
        let key = key(&cache);
        let ask = || {
            let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
            async move {
                let load = async {
                    tokio::task::yield_now().await;
                    loads.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, ()>(block(10))
                };
                cache.get_or_load(key, load).await.unwrap();
            }
        };
        let asked: Vec<_> = (0..10).map(|_| tokio::spawn(ask())).collect();
        for ask in asked {
            ask.await.unwrap();
        }
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        let statistics = cache.statistics();
        assert_eq!(statistics.hits + statistics.misses, 10);
    }

    #[tokio::test]
    async fn a_failed_load_is_not_kept() {
        let cache = BlockCache::new(1 << 20);
        let key = key(&cache);
        assert!(cache.get_or_load(key, async { Err("gone") }).await.is_err());
        let load = async { Ok::<_, ()>(block(10)) };
        assert!(cache.get_or_load(key, load).await.is_ok());
    }

    #[tokio::test]
    async fn the_cache_stays_within_its_capacity() {
        let cache = BlockCache::new(16 << 20);
        for _ in 0..1000 {
            let load = async { Ok::<_, ()>(block(64 << 10)) };
            cache.get_or_load(key(&cache), load).await.unwrap();
        }
        let statistics = cache.statistics();
        assert!(statistics.weight_bytes <= 16 << 20, "{statistics:?}");
        assert!(statistics.weight_bytes > 12 << 20, "{statistics:?}");
    }

    #[tokio::test]
    async fn an_evicted_files_blocks_are_gone() {
        let cache = BlockCache::new(1 << 20);
        let (evicted, kept) = (key(&cache), key(&cache));
        for key in [evicted, kept] {
            let load = async { Ok::<_, ()>(block(10)) };
            cache.get_or_load(key, load).await.unwrap();
        }
        cache.evict(evicted.file);
        assert!(cache.get(evicted).is_none());
        assert!(cache.get(kept).is_some());
    }
}
