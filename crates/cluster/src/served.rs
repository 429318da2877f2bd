//! The regions that a server serves, with their epochs, and the reports about them to the master.
//!
//! A report contains the changes since the last report on the same stream, and a digest of the
//! whole set. The receiver computes the same digest over its own copy. If the two differ, it
//! requests the whole set.

use std::collections::{BTreeMap, VecDeque};

use basalt_model::{EncodedRegionName, RegionEpoch};

use crate::pb;

/// The maximum number of changes in one message.
const CHANGES_PER_MESSAGE: usize = 1_024;

/// The regions that a server serves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServedRegions(BTreeMap<EncodedRegionName, RegionEpoch>);

// === impl ServedRegions ===

impl ServedRegions {
    /// The epoch under which `name` is served; `None` if it is not.
    pub fn epoch(&self, name: EncodedRegionName) -> Option<RegionEpoch> {
        self.0.get(&name).copied()
    }

    /// All served regions.
    pub fn iter(&self) -> impl Iterator<Item = (EncodedRegionName, RegionEpoch)> {
        self.0.iter().map(|(name, epoch)| (*name, *epoch))
    }

    /// The number of served regions.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// A digest of the set (FNV-1a). Two different sets have the same digest with a probability of
    /// 1 in 2^64.
    pub fn digest(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let mut digest = OFFSET;
        for (name, epoch) in &self.0 {
            for byte in name.digest().iter().chain(&epoch.0.to_be_bytes()) {
                digest = (digest ^ u64::from(*byte)).wrapping_mul(PRIME);
            }
        }
        digest
    }

    /// The messages of a report to a receiver that knows `before`. The last one has the digest.
    pub fn report_since(&self, before: &Self) -> VecDeque<pb::ServedReport> {
        let begun = self.0.iter().filter(|(name, epoch)| before.0.get(name) != Some(epoch));
        let begun = begun.map(|(name, epoch)| Change::Begun(*name, *epoch));
        let ended = before.0.keys().filter(|name| !self.0.contains_key(name));
        let ended = ended.map(|name| Change::Ended(*name));
        let changes: Vec<Change> = begun.chain(ended).collect();
        let mut messages: VecDeque<_> =
            changes.chunks(CHANGES_PER_MESSAGE).map(Change::message).collect();
        let mut last = messages.pop_back().unwrap_or_default();
        (last.is_complete, last.digest) = (true, self.digest());
        messages.push_back(last);
        messages
    }

    /// Applies one message of a report. Returns whether this set now equals the server's; `None` if
    /// the report has more messages.
    pub fn take_in(&mut self, message: &pb::ServedReport) -> Option<bool> {
        for name in message.ended.iter().filter_map(|digest| region_name(digest)) {
            self.0.remove(&name);
        }
        self.0.extend(message.begun.iter().filter_map(served_region));
        message.is_complete.then(|| self.digest() == message.digest)
    }

    /// Encodes the set.
    pub fn to_messages(&self) -> Vec<pb::ServedRegion> {
        self.iter().map(|(name, epoch)| message_of(name, epoch)).collect()
    }

    /// Decodes a set.
    pub fn from_messages(messages: &[pb::ServedRegion]) -> Self {
        messages.iter().filter_map(served_region).collect()
    }
}

impl FromIterator<(EncodedRegionName, RegionEpoch)> for ServedRegions {
    fn from_iter<I: IntoIterator<Item = (EncodedRegionName, RegionEpoch)>>(regions: I) -> Self {
        Self(regions.into_iter().collect())
    }
}

/// A change in a report.
#[derive(Clone, Copy)]
enum Change {
    Begun(EncodedRegionName, RegionEpoch),
    Ended(EncodedRegionName),
}

// === impl Change ===

impl Change {
    fn message(changes: &[Self]) -> pb::ServedReport {
        let mut message = pb::ServedReport::default();
        for change in changes {
            match change {
                Self::Begun(name, epoch) => message.begun.push(message_of(*name, *epoch)),
                Self::Ended(name) => message.ended.push(name.digest().to_vec()),
            }
        }
        message
    }
}

fn message_of(name: EncodedRegionName, epoch: RegionEpoch) -> pb::ServedRegion {
    pb::ServedRegion { region: name.digest().to_vec(), epoch: epoch.0 }
}

/// Decodes a served region; `None` if its name is invalid.
fn served_region(message: &pb::ServedRegion) -> Option<(EncodedRegionName, RegionEpoch)> {
    Some((region_name(&message.region)?, RegionEpoch(message.epoch)))
}

fn region_name(digest: &[u8]) -> Option<EncodedRegionName> {
    <[u8; 16]>::try_from(digest).ok().map(EncodedRegionName::from_digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(number: u16) -> EncodedRegionName {
        let mut digest = [0; 16];
        digest[..2].copy_from_slice(&number.to_be_bytes());
        EncodedRegionName::from_digest(digest)
    }

    fn served(regions: impl IntoIterator<Item = (u16, u64)>) -> ServedRegions {
        regions.into_iter().map(|(number, epoch)| (region(number), RegionEpoch(epoch))).collect()
    }

    /// Applies a whole report.
    fn follow(known: &mut ServedRegions, report: &VecDeque<pb::ServedReport>) -> Option<bool> {
        report.iter().fold(None, |_, message| known.take_in(message))
    }

    #[test]
    fn who_follows_the_reports_knows_the_set() {
        let before = served([(1, 1), (2, 1), (3, 1)]);
        let after = served([(2, 2), (3, 1), (4, 7)]);
        let mut known = ServedRegions::default();
        assert_eq!(follow(&mut known, &before.report_since(&ServedRegions::default())), Some(true));
        let report = after.report_since(&before);
        assert_eq!((report[0].begun.len(), report[0].ended.len()), (2, 1), "changes only");
        assert_eq!(follow(&mut known, &report), Some(true));
        assert_eq!(known, after);
        assert_eq!(ServedRegions::from_messages(&known.to_messages()), after);
    }

    #[test]
    fn a_report_that_was_missed_shows_in_the_digest() {
        let (one, two, three) = (served([(1, 1)]), served([(1, 2)]), served([(1, 2), (2, 1)]));
        let mut known = one;
        assert_eq!(follow(&mut known, &three.report_since(&two)), Some(false));
        assert_ne!(two.digest(), three.digest());
        let epochs = [served([(1, 1)]), served([(1, 2)])].map(|set| set.digest());
        assert_ne!(epochs[0], epochs[1], "the epoch counts");
    }

    #[test]
    fn a_large_set_comes_in_several_messages() {
        let all = served((0..2_500).map(|number| (number, 1)));
        let report = all.report_since(&ServedRegions::default());
        assert_eq!(report.len(), 3);
        let mut known = ServedRegions::default();
        assert_eq!(known.take_in(&report[0]), None, "the report goes on");
        assert_eq!(follow(&mut known, &report), Some(true));
        assert!(all.report_since(&all)[0].is_complete, "a report without changes has a digest");
    }

    #[test]
    fn a_name_that_is_none_is_passed_over() {
        let mut known = served([(1, 1)]);
        let message = pb::ServedReport {
            begun: vec![pb::ServedRegion { region: vec![1, 2], epoch: 1 }],
            ended: vec![vec![0; 99]],
            ..Default::default()
        };
        assert_eq!(known.take_in(&message), None);
        assert_eq!(known, served([(1, 1)]));
    }
}
