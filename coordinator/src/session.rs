//! Ids and passwords of sessions.

use basalt_runtime::Random;
use basalt_zk::proto::{PASSWORD_BYTES, SessionId};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::tree::SECRET_BYTES;

/// An id for a new session. The top byte names the member that opens the session, where ZooKeeper
/// has the number of the server. The rest is random. A collision is found when the session is
/// created.
pub(crate) fn new_id(member: u64, random: &Random) -> SessionId {
    const MEMBER_SHIFT: u32 = 56;
    let id = (member << MEMBER_SHIFT) | (random.next_u64() >> (u64::BITS - MEMBER_SHIFT));
    // Member ids are small, so the sign bit is zero.
    SessionId(i64::try_from(id).unwrap_or(i64::MAX))
}

/// The password, which proves to any member that a client has opened `session`. It is the
/// HMAC-SHA256 of the id under the cluster's secret, truncated to the length that clients store.
pub(crate) fn password(secret: &[u8; SECRET_BYTES], session: SessionId) -> Bytes {
    const BLOCK_BYTES: usize = 64;
    let padded = |pad: u8| {
        let mut block = [pad; BLOCK_BYTES];
        for (byte, key) in block.iter_mut().zip(secret) {
            *byte ^= key;
        }
        block
    };
    let inner =
        Sha256::new().chain_update(padded(0x36)).chain_update(session.0.to_be_bytes()).finalize();
    let code = Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize();
    Bytes::copy_from_slice(code.get(..PASSWORD_BYTES).unwrap_or_default())
}

/// Whether `shown` is the password of `session`. The comparison takes the same time wherever they
/// differ.
pub(crate) fn is_password(secret: &[u8; SECRET_BYTES], session: SessionId, shown: &[u8]) -> bool {
    let right = password(secret, session);
    let differences = right.iter().zip(shown).map(|(right, shown)| right ^ shown);
    right.len() == shown.len() && differences.fold(0, |all, one| all | one) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_session_alone() {
        let secret = [7; SECRET_BYTES];
        let shown = password(&secret, SessionId(5));
        assert_eq!(shown.len(), PASSWORD_BYTES);
        assert!(is_password(&secret, SessionId(5), &shown));
        assert!(!is_password(&secret, SessionId(6), &shown));
        assert!(!is_password(&[8; SECRET_BYTES], SessionId(5), &shown));
        assert!(!is_password(&secret, SessionId(5), &shown[..8]));
    }

    #[test]
    fn ids_name_their_member_and_are_positive() {
        let random = Random::from_seed(1);
        for member in [1, 100] {
            let id = new_id(member, &random);
            assert_eq!(id.0 >> 56, i64::try_from(member).unwrap());
        }
    }
}
