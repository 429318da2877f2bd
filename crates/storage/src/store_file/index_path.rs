//! A path through the index: one entry of each level, from the root down to the entry of a data
//! block.

use std::cmp::Ordering;
use std::sync::Arc;

use basalt_model::CellKey;

use super::block::{BlockPointer, BlockType};
use super::error::Result;
use super::index::{IndexBlock, compare};
use super::reader::StoreFile;

/// The path to one data block.
#[derive(Clone, Debug)]
pub(super) struct IndexPath {
    /// Never empty; each number is that of an entry in its block.
    levels: Vec<(Arc<IndexBlock>, usize)>,
}

/// The target of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal<'a> {
    /// The block that would hold this key, or the first block if the key sorts before all blocks.
    Key(&'a CellKey<'a>),
    First,
    Last,
}

// === impl IndexPath ===

impl IndexPath {
    /// The path to `goal`; `None` if the file has no cells.
    pub(super) async fn find(file: &StoreFile, goal: Goal<'_>) -> Result<Option<Self>> {
        let root = file.root();
        if root.count() == 0 {
            return Ok(None);
        }
        let entry = goal.entry(root);
        let path = Self { levels: vec![(Arc::clone(root), entry)] };
        path.descend(file, goal).await.map(Some)
    }

    /// The path to the data block after this one.
    pub(super) async fn next(&self, file: &StoreFile) -> Result<Option<Self>> {
        let step = |block: &IndexBlock, entry: usize| {
            let next = entry + 1;
            (next < block.count()).then_some(next)
        };
        self.neighbour(file, step, Goal::First).await
    }

    /// The path to the data block before this one.
    pub(super) async fn previous(&self, file: &StoreFile) -> Result<Option<Self>> {
        let step = |_: &IndexBlock, entry: usize| entry.checked_sub(1);
        self.neighbour(file, step, Goal::Last).await
    }

    /// The data block that the path leads to.
    pub(super) fn pointer(&self) -> BlockPointer {
        self.levels.last().map(|(block, entry)| block.pointer(*entry)).unwrap_or_default()
    }

    /// Whether a search for `key` leads to the same data block.
    pub(super) fn covers(&self, key: &CellKey<'_>) -> bool {
        let starts_before = self
            .levels
            .last()
            .is_some_and(|(block, entry)| compare(block.key(*entry), key) != Ordering::Greater);
        // The key of the next block is at the lowest level that has a next entry.
        let next_key = self
            .levels
            .iter()
            .rev()
            .find(|(block, entry)| entry + 1 < block.count())
            .map(|(block, entry)| block.key(entry + 1));
        let ends_after = next_key.is_none_or(|next| compare(next, key) == Ordering::Greater);
        starts_before && ends_after
    }

    /// Steps at the lowest level where that is possible, and descends to `goal` from there.
    async fn neighbour(
        &self,
        file: &StoreFile,
        step: impl Fn(&IndexBlock, usize) -> Option<usize>,
        goal: Goal<'_>,
    ) -> Result<Option<Self>> {
        let mut levels = self.levels.clone();
        while let Some((block, entry)) = levels.pop() {
            if let Some(entry) = step(&block, entry) {
                levels.push((block, entry));
                return Self { levels }.descend(file, goal).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn descend(mut self, file: &StoreFile, goal: Goal<'_>) -> Result<Self> {
        while self.levels.len() < file.index_levels() {
            let is_leaf = self.levels.len() + 1 == file.index_levels();
            let block_type =
                if is_leaf { BlockType::LeafIndex } else { BlockType::IntermediateIndex };
            let block = file.index_block(self.pointer(), block_type).await?;
            let entry = goal.entry(&block);
            self.levels.push((block, entry));
        }
        Ok(self)
    }
}

// === impl Goal ===

impl Goal<'_> {
    /// The entry to follow in a block that is not empty.
    fn entry(self, block: &IndexBlock) -> usize {
        match self {
            Self::Key(key) => block.find_key(key).unwrap_or_default(),
            Self::First => 0,
            Self::Last => block.count().saturating_sub(1),
        }
    }
}
