//! A digest of the state, which is updated while commands are applied. It is the sum of a hash of
//! each item, so the cost of a change depends only on the items that it touches. Members that hold
//! the same state have the same digest. It is compared, never stored.

use sha2::{Digest, Sha256};

use basalt_zk::proto::SessionId;

use super::node::Node;
use super::state::{Pipeline, SECRET_BYTES, Session, State};

/// The version of the computation. Digests of other versions are not compared with it.
pub(crate) const DIGEST_VERSION: u32 = 1;

/// Feeds fields to a hash, so that the end of each field is unambiguous.
struct Fields(Sha256);

// === impl Fields ===

impl Fields {
    fn new(kind: u8) -> Self {
        Self(Sha256::new_with_prefix([kind]))
    }

    fn number(mut self, number: i64) -> Self {
        self.0.update(number.to_be_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn digest(self) -> u64 {
        let hash = self.0.finalize();
        hash.first_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}

/// The digest of a node. The names of its children are left out, because they follow from the
/// children.
pub(super) fn of_node(path: &str, node: &Node) -> u64 {
    let mut fields = Fields::new(b'n')
        .bytes(path.as_bytes())
        .number(i64::from(node.data.is_some()))
        .bytes(node.data.as_deref().unwrap_or_default())
        .number(node.created_zxid.0)
        .number(node.modified_zxid.0)
        .number(node.created_ms)
        .number(node.modified_ms)
        .number(i64::from(node.version))
        .number(i64::from(node.acl_version))
        .number(node.owner.0)
        .number(i64::from(node.family.births))
        .number(node.family.zxid.0);
    for entry in node.acl.iter() {
        fields = fields
            .number(i64::from(entry.permissions))
            .bytes(entry.scheme.as_bytes())
            .bytes(entry.id.as_bytes());
    }
    fields.digest()
}

/// The digest of a session.
pub(super) fn of_session(id: SessionId, session: &Session) -> u64 {
    Fields::new(b's')
        .number(id.0)
        .number(i64::from(session.timeout_ms))
        .bytes(&session.attachment.to_be_bytes())
        .digest()
}

/// The digest of how far a member's commands have been applied.
pub(super) fn of_pipeline(member: u64, pipeline: &Pipeline) -> u64 {
    Fields::new(b'p')
        .bytes(&member.to_be_bytes())
        .bytes(&pipeline.life.to_be_bytes())
        .bytes(&pipeline.number.to_be_bytes())
        .digest()
}

/// The digest of the key of the session passwords.
pub(super) fn of_secret(secret: &[u8; SECRET_BYTES]) -> u64 {
    Fields::new(b'k').bytes(secret).digest()
}

// === impl State ===

impl State {
    /// The digest of the whole state.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The digest, computed from scratch.
    #[cfg(test)]
    pub(crate) fn digest_from_scratch(&self) -> u64 {
        let nodes = self.nodes.iter().map(|(path, node)| of_node(path, node));
        let sessions = self.sessions.iter().map(|(id, session)| of_session(*id, session));
        let pipelines = self.pipelines.iter().map(|(member, last)| of_pipeline(*member, last));
        let secret = self.secret.iter().map(of_secret);
        let all = nodes.chain(sessions).chain(pipelines).chain(secret);
        all.fold(0, u64::wrapping_add)
    }
}
