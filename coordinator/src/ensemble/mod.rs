//! Which ensemble a member belongs to, and who its peers are.
//!
//! An ensemble forms once, when all of its configured members are present and empty. Its id is
//! derived from random numbers, one drawn by each member. From then on the id is in the log, the
//! snapshots and the record of each member, and in every request between members. A member whose
//! folder is empty later never forms another ensemble. It joins the ensemble of a majority that has
//! data, and votes once it has caught up (`rejoin`).
//!
//! Members greet each other. A member reports its facts only in requests: an answer reveals nothing
//! to a stranger, and nothing that a stranger sends is written to disk.

mod census;
mod greeting;
mod record;
mod roll;
mod run;
mod service;

use std::fmt;
use std::sync::Arc;

use basalt_runtime::Random;
use bytes::Bytes;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};

use crate::tree::SECRET_BYTES;

pub(crate) use census::Heard;
pub(crate) use record::{Record, RecordStore};
pub(crate) use roll::Roll;
pub(crate) use run::{Standing, run};
pub(crate) use service::EnsembleService;

/// Identifies an ensemble. A sender that does not know the id is a stranger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EnsembleId([u8; ID_BYTES]);

/// A random number, drawn for an empty folder. A folder that replaces a lost one is therefore not
/// mistaken for it.
pub(crate) type Nonce = [u8; ID_BYTES];

/// What a member reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberFacts {
    /// The ensemble that it belongs to.
    pub(crate) ensemble: Option<EnsembleId>,
    /// Whether its log or a snapshot has any data.
    pub(crate) has_data: bool,
    /// The random number of its folder.
    pub(crate) nonce: Nonce,
    /// The ensemble that it would form, if all the others would too.
    pub(crate) candidate: Option<EnsembleId>,
    /// Whether it has everything that it ever promised to keep.
    pub(crate) is_counted: bool,
    /// Whether an operator has declared its data authoritative.
    pub(crate) is_authority: bool,
    /// The member's current start.
    pub(crate) start: Start,
    /// The number of entries in its log, purged ones included, when it started or was readmitted.
    pub(crate) began_with: u64,
    /// The number of durable entries in its log, purged ones included.
    pub(crate) entries: u64,
    /// The highest term that it knows.
    pub(crate) term: u64,
}

/// Identifies a start of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// Rises with each start, and when the member is readmitted.
    pub(crate) incarnation: u64,
    /// The life that began with the start. It differs even if two copies of one folder start under
    /// the same incarnation.
    pub(crate) life: u64,
}

/// What a member knows about its ensemble. Clones share one value.
#[derive(Clone, Debug)]
pub(crate) struct Ensemble(Arc<RwLock<Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    id: Option<EnsembleId>,
    has_data: bool,
    /// Whether senders without an id are strangers. This holds unless peers may run an earlier
    /// release.
    is_strict: bool,
}

const ID_BYTES: usize = 16;

// === impl EnsembleId ===

impl EnsembleId {
    /// The id that the members of a new ensemble agree on, derived from the numbers that they drew.
    pub(crate) fn founded_by<'a>(members: impl Iterator<Item = (u64, &'a Nonce)>) -> Self {
        let mut digest = Sha256::new_with_prefix(b"basalt ensemble, founded");
        for (member, nonce) in members {
            digest.update(member.to_be_bytes());
            digest.update(nonce);
        }
        Self::cut(&digest.finalize())
    }

    /// The id of an ensemble that an earlier release formed, derived from the secret that all of
    /// its members know.
    pub(crate) fn of_secret(secret: &[u8; SECRET_BYTES]) -> Self {
        let digest = Sha256::new_with_prefix(b"basalt ensemble, of an earlier release");
        Self::cut(&digest.chain_update(secret).finalize())
    }

    /// A random id, for the ensemble that an operator creates from the data of one member.
    pub(crate) fn drawn(random: &Random) -> Self {
        let mut id = [0; ID_BYTES];
        random.fill(&mut id);
        Self(id)
    }

    /// Reads an id from disk or from a message.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The id as it is written to disk or sent.
    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The id as a byte slice.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `shown` is this id. The comparison takes the same time wherever they differ.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        let differences = self.0.iter().zip(shown).map(|(right, shown)| right ^ shown);
        shown.len() == ID_BYTES && differences.fold(0, |all, one| all | one) == 0
    }

    fn cut(digest: &[u8]) -> Self {
        let mut id = [0; ID_BYTES];
        for (byte, drawn) in id.iter_mut().zip(digest) {
            *byte = *drawn;
        }
        Self(id)
    }
}

impl fmt::Debug for EnsembleId {
    /// Enough to distinguish two ids. The rest must not appear in logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(formatter, "{first:02x}{second:02x}…")
    }
}

// === impl Ensemble ===

impl Ensemble {
    /// What a member knows when it starts.
    pub(crate) fn new(id: Option<EnsembleId>, has_data: bool, is_strict: bool) -> Self {
        Self(Arc::new(RwLock::new(Known { id, has_data, is_strict })))
    }

    /// The id, once there is one.
    pub(crate) fn id(&self) -> Option<EnsembleId> {
        self.0.read().id
    }

    /// Records that the member belongs to `id` from now on.
    pub(crate) fn set(&self, id: EnsembleId, is_strict: bool) {
        *self.0.write() = Known { id: Some(id), has_data: true, is_strict };
    }

    /// Records that the member takes part without an id, in an ensemble of an earlier release.
    pub(crate) fn take_part(&self) {
        self.0.write().has_data = true;
    }

    /// Whether the member takes part in any ensemble.
    pub(crate) fn takes_part(&self) -> bool {
        let known = self.0.read();
        known.id.is_some() || known.has_data
    }

    /// Whether every peer must send the id.
    pub(crate) fn is_strict(&self) -> bool {
        self.0.read().is_strict
    }

    /// Whether a request comes from a peer. `shown` is the id in the request, if there is one.
    pub(crate) fn is_peer(&self, shown: Option<&[u8]>) -> bool {
        let known = *self.0.read();
        match (known.id, shown) {
            (Some(id), Some(shown)) => id.is(shown),
            (Some(_), None) => !known.is_strict,
            // Until the id of an earlier release's ensemble is known, every sender counts as a
            // peer.
            (None, _) => known.has_data,
        }
    }
}

/// How many of `members` are a majority.
pub(crate) fn majority(members: usize) -> usize {
    members / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_all_that_was_drawn() {
        let founded = |nonces: [u8; 3]| {
            let drawn = nonces.map(|nonce| [nonce; ID_BYTES]);
            EnsembleId::founded_by((1..).zip(&drawn))
        };
        assert_eq!(founded([1, 2, 3]), founded([1, 2, 3]));
        assert_ne!(founded([1, 2, 3]), founded([1, 2, 4]));
        assert_ne!(founded([1, 2, 3]), founded([2, 1, 3]));
    }

    #[test]
    fn strangers_are_refused_once_all_peers_know_the_id() {
        let id = EnsembleId::of_secret(&[1; SECRET_BYTES]);
        let other = EnsembleId::of_secret(&[2; SECRET_BYTES]);
        let empty = Ensemble::new(None, false, true);
        assert!(!empty.is_peer(None) && !empty.is_peer(Some(id.as_bytes())));
        let earlier = Ensemble::new(None, true, false);
        assert!(earlier.is_peer(None));
        earlier.set(id, false);
        assert!(earlier.is_peer(None) && earlier.is_peer(Some(id.as_bytes())));
        assert!(!earlier.is_peer(Some(other.as_bytes())));
        earlier.set(id, true);
        assert!(!earlier.is_peer(None) && earlier.is_peer(Some(id.as_bytes())));
        assert!(!earlier.is_peer(Some(&id.as_bytes()[..8])));
    }
}
