//! Planted bugs, for tests only: switches that turn off one rule each.
//!
//! A test harness is credible once it has caught a planted bug. The code that enforces a rule asks
//! [`is_off`]. Without the feature `planted-bugs`, the answer is `false` at compile time, and the
//! binary contains no trace of it. With the feature, `turn_off` plants one bug in this process.

/// A rule that keeps data safe and that a test may turn off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
pub enum Rule {
    /// A batch of the log is synced before its edits are acknowledged.
    SyncBeforeAck,
    /// A log is sealed only once its writer is proved gone or its lease has ended.
    WalFence,
    /// Each write and each order of a master checks that its epoch is the highest.
    MasterEpoch,
    /// OPENING becomes OPEN only if the record still names this ownership.
    RegionEpochAtOpen,
    /// An opener puts the region's manifest under its own epoch before it serves.
    RegionEpochInManifest,
    /// A server answers only while its serving lease runs.
    ServingLease,
    /// Nobody reads a sealed log beyond its committed sealed length.
    CommittedLength,
    /// Replay skips edits that are already in the store files.
    ReplaySequence,
    /// The WAL record of an operation includes its nonce.
    NonceInWal,
    /// An operation with a nonce is looked up in the nonce files.
    NonceFiles,
    /// A small file appears under its name only once it is whole.
    WholeBeforeRename,
    /// A file is synced only if it is still under its name afterwards.
    NameAtSync,
    /// Time without a quorum does not count against a session.
    QuorumTime,
    /// A new ensemble of the coordinator forms only if all of its members are empty.
    WholeEnsembleForms,
    /// A member of the coordinator that has lost data is readmitted before it votes.
    Readmission,
    /// A member of the coordinator whose state differs from that of a majority stops serving.
    StateChecksum,
    /// A member accepts a term only from a member of its ensemble, and only if elections can have
    /// reached that term.
    BelievableTerm,
    /// The feature level is raised only once every living server knows the next level.
    LevelOfAll,
    /// Procedures on a table and moves of its regions take turns.
    TableLock,
    /// A region becomes OPENING only if its table is still to be served.
    TableVersionAtOpening,
    /// A procedure on a table ends only once every living server's catalog shows its effect.
    CatalogsBeforeEnd,
    /// A region server whose serving threads stand still gives up its session.
    ServingProbe,
    /// No edit is accepted unless the disk has room for it in the log.
    RoomForTheLog,
    /// An order to close a region waits for an opening in progress.
    CloseWaitsForOpening,
    /// A region is closed by one task at a time, and the last check of its memory and the end of
    /// its service are one step.
    OneCloseAtATime,
    /// An order to open a region is carried out only if the coordinator's record confirms it.
    OpenOnRecord,
    /// A master's epoch is accepted only if the coordinator's record shows it.
    RecordedMasterEpoch,
    /// The regions that servers serve are compared with the records, and differences are repaired.
    AntiEntropy,
    /// The coordinator's log waits for room on a full disk instead of failing.
    LogWaitsForRoom,
    /// On a full disk, the last of the coordinator's log space is reserved for sessions that hold
    /// leases.
    RoomForLeases,
    /// A sealed log that has become shorter than its sealed length is a loss, not a torn tail.
    SealedLength,
    /// The process that seals a file syncs the bytes that the seal covers.
    SyncAtSeal,
    /// A sealed log that may become shorter is copied, and the copy replaces it.
    ShrinkingLog,
    /// A dead server's regions stay closed while one of its logs that must exist is missing.
    MissingLog,
    /// A server assigns no timestamps while its clock is known to be wrong.
    ClockBound,
    /// The master compares the clocks of servers with its boot clock, which cannot be set.
    ReadingsByBootClock,
    /// A family that is removed and added again begins empty.
    FamilyIncarnations,
    /// A family that was removed is added again only once no region serves it any more.
    RemovedFamilies,
    /// No read shows a cell that has outlived its time to live, whether or not a compaction has
    /// dropped it.
    TimeToLive,
    /// The minimum number of versions that a family declares is kept even if they have outlived
    /// their time to live.
    VersionsMin,
    /// A flush or a compaction keeps the deleted cells that their family is configured to keep.
    KeepDeletedCells,
}

impl Rule {
    /// All rules.
    pub const ALL: &[Self] = &[
        Self::SyncBeforeAck,
        Self::WalFence,
        Self::MasterEpoch,
        Self::RegionEpochAtOpen,
        Self::RegionEpochInManifest,
        Self::ServingLease,
        Self::CommittedLength,
        Self::ReplaySequence,
        Self::NonceInWal,
        Self::NonceFiles,
        Self::WholeBeforeRename,
        Self::NameAtSync,
        Self::QuorumTime,
        Self::WholeEnsembleForms,
        Self::Readmission,
        Self::StateChecksum,
        Self::BelievableTerm,
        Self::LevelOfAll,
        Self::TableLock,
        Self::TableVersionAtOpening,
        Self::CatalogsBeforeEnd,
        Self::ServingProbe,
        Self::RoomForTheLog,
        Self::CloseWaitsForOpening,
        Self::OneCloseAtATime,
        Self::OpenOnRecord,
        Self::RecordedMasterEpoch,
        Self::AntiEntropy,
        Self::LogWaitsForRoom,
        Self::RoomForLeases,
        Self::SealedLength,
        Self::SyncAtSeal,
        Self::ShrinkingLog,
        Self::MissingLog,
        Self::ClockBound,
        Self::ReadingsByBootClock,
        Self::FamilyIncarnations,
        Self::RemovedFamilies,
        Self::TimeToLive,
        Self::VersionsMin,
        Self::KeepDeletedCells,
    ];

    /// The name that commands use.
    pub fn name(self) -> &'static str {
        match self {
            Self::SyncBeforeAck => "sync-before-ack",
            Self::WalFence => "wal-fence",
            Self::MasterEpoch => "master-epoch",
            Self::RegionEpochAtOpen => "region-epoch-at-open",
            Self::RegionEpochInManifest => "region-epoch-in-manifest",
            Self::ServingLease => "serving-lease",
            Self::CommittedLength => "committed-length",
            Self::ReplaySequence => "replay-sequence",
            Self::NonceInWal => "nonce-in-wal",
            Self::NonceFiles => "nonce-files",
            Self::WholeBeforeRename => "whole-before-rename",
            Self::NameAtSync => "name-at-sync",
            Self::QuorumTime => "quorum-time",
            Self::WholeEnsembleForms => "whole-ensemble-forms",
            Self::Readmission => "readmission",
            Self::StateChecksum => "state-checksum",
            Self::BelievableTerm => "believable-term",
            Self::LevelOfAll => "level-of-all",
            Self::TableLock => "table-lock",
            Self::TableVersionAtOpening => "table-version-at-opening",
            Self::CatalogsBeforeEnd => "catalogs-before-end",
            Self::ServingProbe => "serving-probe",
            Self::RoomForTheLog => "room-for-the-log",
            Self::CloseWaitsForOpening => "close-waits-for-opening",
            Self::OneCloseAtATime => "one-close-at-a-time",
            Self::OpenOnRecord => "open-on-record",
            Self::RecordedMasterEpoch => "recorded-master-epoch",
            Self::AntiEntropy => "anti-entropy",
            Self::LogWaitsForRoom => "log-waits-for-room",
            Self::RoomForLeases => "room-for-leases",
            Self::SealedLength => "sealed-length",
            Self::SyncAtSeal => "sync-at-seal",
            Self::ShrinkingLog => "shrinking-log",
            Self::MissingLog => "missing-log",
            Self::ClockBound => "clock-bound",
            Self::ReadingsByBootClock => "readings-by-boot-clock",
            Self::FamilyIncarnations => "family-incarnations",
            Self::RemovedFamilies => "removed-families",
            Self::TimeToLive => "time-to-live",
            Self::VersionsMin => "versions-min",
            Self::KeepDeletedCells => "keep-deleted-cells",
        }
    }
}

/// Whether this build can turn rules off.
pub const CAN_BE_PLANTED: bool = cfg!(feature = "planted-bugs");

#[cfg(feature = "planted-bugs")]
mod switches {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Rule;

    static OFF: AtomicU64 = AtomicU64::new(0);

    /// Turns `rule` off in this process, permanently.
    pub fn turn_off(rule: Rule) {
        OFF.fetch_or(1 << rule as u64, Ordering::Relaxed);
    }

    /// Whether `rule` has been turned off.
    pub fn is_off(rule: Rule) -> bool {
        OFF.load(Ordering::Relaxed) & (1 << rule as u64) != 0
    }
}

#[cfg(feature = "planted-bugs")]
pub use switches::{is_off, turn_off};

/// Always false: this build cannot turn rules off.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is_off(_rule: Rule) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "planted-bugs"))]
    #[test]
    fn without_the_feature_every_rule_holds() {
        const { assert!(!CAN_BE_PLANTED) };
        assert!(Rule::ALL.iter().all(|rule| !is_off(*rule)));
    }

    #[cfg(feature = "planted-bugs")]
    #[test]
    fn one_rule_is_turned_off_and_no_other() {
        turn_off(Rule::WalFence);
        let off: Vec<Rule> = Rule::ALL.iter().copied().filter(|rule| is_off(*rule)).collect();
        assert_eq!(off, [Rule::WalFence]);
    }
}
