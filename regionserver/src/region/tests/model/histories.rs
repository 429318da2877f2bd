//! The steps of histories, and how they are generated.

use std::collections::{BTreeMap, BTreeSet};

use basalt_hbase_rpc::pb;
use basalt_model::{BloomType, CellType, FamilyDescriptor, KeepDeletedCells, TableDescriptor};
use basalt_reference::ModelCell;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use crate::region::testing::table;

pub(super) const FAMILIES: [&str; 2] = ["f", "g"];
pub(super) const ROWS: [&str; 3] = ["a", "b", "c"];
/// The column `n` holds numbers. The column without a name has the key that deletes of a family
/// have.
pub(super) const QUALIFIERS: [&str; 4] = ["", "n", "p", "q"];
pub(super) const NUMBER: &str = "n";
/// The time at which a history begins, by the clock of the test servers.
pub(super) const BEGIN_MS: i64 = 1_000_000;

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum HistoryStep {
    Mutate(Vec<Write>),
    MutateRow(Vec<Write>),
    /// A conditional mutation of one column. `holds` says whether the condition is to hold.
    Check {
        family: usize,
        qualifier: usize,
        holds: bool,
        writes: Vec<Write>,
    },
    Flush,
    /// Merges some of a family's files.
    Merge {
        family: usize,
        first: usize,
        count: usize,
    },
    MergeAll {
        family: usize,
    },
    /// Reopens the region after a flush.
    Reopen,
    /// Ends the server, and recovers the region from its log.
    Crash,
    Pass {
        ms: u64,
    },
    Read(Read),
}

/// One cell of a mutation, in the mutation's row.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) kind: Kind,
    pub(super) family: usize,
    pub(super) qualifier: usize,
    pub(super) at: Option<i64>,
    pub(super) value: u8,
    /// The column is written twice.
    pub(super) twice: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Cell(CellType),
    DeleteRow,
    Update,
}

#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) reversed: bool,
    pub(super) start: (usize, bool),
    pub(super) stop: (usize, bool),
    pub(super) qualifiers: Option<BTreeSet<usize>>,
    pub(super) versions: u32,
    pub(super) range: Option<(i64, i64)>,
    pub(super) raw: bool,
    pub(super) filter: Option<FilterKind>,
    pub(super) room: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum FilterKind {
    Prefix(usize),
    Page(usize),
    FirstKeyOnly,
    Value { qualifier: usize, value: u8, newest_only: bool, takes_missing: bool },
}

// === impl Read ===

impl Read {
    pub(super) fn covers(&self, row: &str) -> bool {
        let (low, high) =
            if self.reversed { (self.stop, self.start) } else { (self.start, self.stop) };
        let after_low =
            ROWS.get(low.0).is_none_or(|low_row| row > *low_row || (low.1 && row == *low_row));
        let before_high =
            ROWS.get(high.0).is_none_or(|high_row| row < *high_row || (high.1 && row == *high_row));
        after_low && before_high
    }
}

// === impl FilterKind ===

impl FilterKind {
    pub(super) fn message(self) -> pb::Filter {
        let of = |name: &str, bytes: Vec<u8>| pb::Filter {
            name: format!("org.apache.hadoop.hbase.filter.{name}"),
            serialized_filter: Some(bytes.into()),
        };
        match self {
            Self::Prefix(row) => {
                let prefix = Some(Bytes::from_static(ROWS[row].as_bytes()));
                of("PrefixFilter", pb::PrefixFilter { prefix }.encode_to_vec())
            }
            Self::Page(rows) => {
                of("PageFilter", pb::PageFilter { page_size: rows as i64 }.encode_to_vec())
            }
            Self::FirstKeyOnly => of("FirstKeyOnlyFilter", Vec::new()),
            Self::Value { qualifier, value, newest_only, takes_missing } => {
                let comparable = pb::ByteArrayComparable { value: Some(value_of(value).into()) };
                let comparator =
                    of("BinaryComparator", pb::BinaryComparator { comparable }.encode_to_vec());
                let filter = pb::SingleColumnValueFilter {
                    column_family: Some(Bytes::from_static(FAMILIES[0].as_bytes())),
                    column_qualifier: Some(QUALIFIERS[qualifier].into()),
                    compare_op: pb::CompareType::Equal.into(),
                    comparator: pb::Comparator {
                        name: comparator.name,
                        serialized_comparator: comparator.serialized_filter,
                    },
                    filter_if_missing: Some(!takes_missing),
                    latest_version_only: Some(newest_only),
                };
                of("SingleColumnValueFilter", filter.encode_to_vec())
            }
        }
    }

    /// The expected rest of a row whose versions are all given.
    pub(super) fn expected(
        self,
        row: &str,
        cells: Vec<(&'static str, ModelCell)>,
        versions: u32,
        taken: &mut usize,
    ) -> Vec<(&'static str, ModelCell)> {
        let takes = match self {
            Self::Prefix(prefix) => row.starts_with(ROWS[prefix]),
            Self::Page(rows) => *taken < rows,
            Self::FirstKeyOnly => true,
            Self::Value { qualifier, value, newest_only, takes_missing } => {
                let column = cells
                    .iter()
                    .filter(|(family, cell)| {
                        *family == FAMILIES[0] && cell.qualifier == QUALIFIERS[qualifier]
                    })
                    .map(|(_, cell)| cell.value == value_of(value).as_bytes())
                    .collect::<Vec<_>>();
                match column.first() {
                    None => takes_missing,
                    Some(newest) if newest_only => *newest,
                    Some(_) => column.contains(&true),
                }
            }
        };
        if !takes || cells.is_empty() {
            return Vec::new();
        }
        *taken += 1;
        if matches!(self, Self::FirstKeyOnly) {
            return cells.into_iter().take(1).collect();
        }
        let mut counts: BTreeMap<(&str, String), u32> = BTreeMap::new();
        let mut left = Vec::new();
        for (family, cell) in cells {
            let count = counts.entry((family, cell.qualifier.clone())).or_default();
            *count += 1;
            if *count <= versions {
                left.push((family, cell));
            }
        }
        left
    }
}

pub(super) fn value_of(value: u8) -> String {
    char::from(b'a' + value % 4).to_string()
}

pub(super) fn number(value: u8) -> [u8; 8] {
    i64::from(value % 100).to_be_bytes()
}

// === Strategies ===

pub(super) fn families() -> impl Strategy<Value = TableDescriptor> {
    let keep = prop_oneof![
        3 => Just(KeepDeletedCells::False),
        1 => Just(KeepDeletedCells::True),
        1 => Just(KeepDeletedCells::Ttl),
    ];
    let bloom = prop_oneof![Just(BloomType::None), Just(BloomType::Row), Just(BloomType::RowCol)];
    let family = (1..4_u32, 0..3_u32, proptest::option::of(Just(10_u32)), keep, bloom);
    (family.clone(), family).prop_map(|families| {
        let mut declared = table();
        for (name, (versions_max, versions_min, time_to_live_s, keep_deleted_cells, bloom)) in
            FAMILIES.into_iter().zip([families.0, families.1])
        {
            let versions_min = versions_min.min(versions_max);
            let family = FamilyDescriptor {
                versions_max,
                versions_min,
                time_to_live_s,
                keep_deleted_cells,
                bloom,
                ..FamilyDescriptor::new(name)
            };
            declared.families.insert(name.to_owned(), family);
        }
        declared
    })
}

/// Times before and after the beginning. There are few of them, so that they collide.
pub(super) fn offset() -> impl Strategy<Value = i64> {
    (-3..4_i64).prop_map(|steps| steps * 4_000)
}

pub(super) fn write(updates: bool) -> impl Strategy<Value = Write> {
    let kind = prop_oneof![
        6 => Just(Kind::Cell(CellType::Put)),
        1 => Just(Kind::Cell(CellType::Delete)),
        1 => Just(Kind::Cell(CellType::DeleteColumn)),
        1 => Just(Kind::Cell(CellType::DeleteFamily)),
        1 => Just(Kind::Cell(CellType::DeleteFamilyVersion)),
        1 => Just(Kind::DeleteRow),
        3 => Just(if updates { Kind::Update } else { Kind::Cell(CellType::Put) }),
    ];
    let at = proptest::option::weighted(0.7, offset());
    let column = (0..FAMILIES.len(), 0..QUALIFIERS.len());
    (kind, column, at, 0..100_u8, proptest::bool::weighted(0.2)).prop_map(
        |(kind, (family, qualifier), at, value, twice)| Write {
            kind,
            family,
            qualifier,
            at,
            value,
            twice,
        },
    )
}

pub(super) fn read() -> impl Strategy<Value = Read> {
    let bound = || (0..=ROWS.len(), any::<bool>());
    let filter = prop_oneof![
        (0..ROWS.len()).prop_map(FilterKind::Prefix),
        (0..3_usize).prop_map(FilterKind::Page),
        Just(FilterKind::FirstKeyOnly),
        (0..QUALIFIERS.len(), 0..4_u8, any::<bool>(), any::<bool>()).prop_map(
            |(qualifier, value, newest_only, takes_missing)| FilterKind::Value {
                qualifier,
                value,
                newest_only,
                takes_missing,
            }
        ),
    ];
    let range = (offset(), offset()).prop_map(|(a, b)| (a.min(b), a.max(b) + 1));
    let qualifiers = proptest::collection::btree_set(0..QUALIFIERS.len(), 1..3);
    (
        (any::<bool>(), bound(), bound(), 1..6_usize),
        proptest::option::weighted(0.5, qualifiers),
        1..5_u32,
        proptest::option::weighted(0.3, range),
        proptest::bool::weighted(0.2),
        proptest::option::weighted(0.4, filter),
    )
        .prop_map(
            |((reversed, start, stop, room), qualifiers, versions, range, raw, filter)| Read {
                reversed,
                start,
                stop,
                // HBase rejects a raw read of some columns, and filtered raw reads are not
                // compared.
                qualifiers: qualifiers.filter(|_| !raw),
                versions,
                range,
                raw,
                filter: filter.filter(|_| !raw),
                room,
            },
        )
}

pub(super) fn step() -> impl Strategy<Value = HistoryStep> {
    let family = || 0..FAMILIES.len();
    prop_oneof![
        6 => vec(write(false), 1..4).prop_map(HistoryStep::Mutate),
        3 => vec(write(true), 1..4).prop_map(HistoryStep::MutateRow),
        3 => (family(), 0..QUALIFIERS.len(), any::<bool>(), vec(write(true), 1..3)).prop_map(
            |(family, qualifier, holds, writes)| {
                HistoryStep::Check { family, qualifier, holds, writes }
            }
        ),
        3 => Just(HistoryStep::Flush),
        2 => (family(), 0..4_usize, 1..4_usize)
            .prop_map(|(family, first, count)| HistoryStep::Merge { family, first, count }),
        2 => family().prop_map(|family| HistoryStep::MergeAll { family }),
        1 => Just(HistoryStep::Reopen),
        1 => Just(HistoryStep::Crash),
        2 => (1..6_000_u64).prop_map(|ms| HistoryStep::Pass { ms }),
        8 => read().prop_map(HistoryStep::Read),
    ]
}
