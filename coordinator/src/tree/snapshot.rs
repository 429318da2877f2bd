//! The encoding of the whole state.
//!
//! The encoding is a sequence of parts, each a message preceded by its length. Nodes are in the
//! order of their paths, so a parent comes before its children. The names of a node's children are
//! not stored, but restored from the children.

use std::sync::Arc;

use basalt_zk::proto::{SessionId, Zxid};
use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::tree::node::{Family, Node};
use crate::tree::state::{Pipeline, Session, State, split};
use crate::wire::command::{acl_from_wire, acl_to_wire};
use crate::wire::v1::{self, snapshot_part::Part};

/// Why bytes are not a valid snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// A part does not decode.
    #[error("a part of the snapshot does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A part is empty, or of a newer release.
    #[error("the snapshot has a part that this release does not know")]
    UnknownPart,
    /// The key of the session passwords has the wrong length.
    #[error("the snapshot's secret has the wrong length")]
    Secret,
    /// A node comes before its parent.
    #[error("the snapshot has {path} without its parent")]
    Orphan {
        /// The node.
        path: String,
    },
    /// There is no root.
    #[error("the snapshot has no root node")]
    NoRoot,
}

// === impl State ===

impl State {
    /// Encodes the state. Equal states have equal encodings.
    pub(crate) fn encode(&self, output: &mut BytesMut) -> Result<(), prost::EncodeError> {
        if let Some(secret) = &self.secret {
            put(output, Part::Secret(secret.to_vec().into()))?;
        }
        for (member, pipeline) in &self.pipelines {
            put(
                output,
                Part::Pipeline(v1::Pipeline {
                    member: *member,
                    life: pipeline.life,
                    number: pipeline.number,
                }),
            )?;
        }
        for (id, session) in &self.sessions {
            put(
                output,
                Part::Session(v1::Session {
                    session: id.0,
                    timeout_ms: session.timeout_ms,
                    attachment: session.attachment,
                }),
            )?;
        }
        for (path, node) in &self.nodes {
            put(output, Part::Node(node_to_wire(path, node)))?;
        }
        Ok(())
    }

    /// Decodes a state.
    pub(crate) fn decode(mut input: Bytes) -> Result<Self, SnapshotError> {
        let mut state = Self::new();
        state.nodes.clear();
        state.digest = 0;
        while !input.is_empty() {
            let part = v1::SnapshotPart::decode_length_delimited(&mut input)?;
            match part.part.ok_or(SnapshotError::UnknownPart)? {
                Part::Secret(secret) => {
                    let secret = secret.as_ref().try_into();
                    state.set_secret(secret.map_err(|_| SnapshotError::Secret)?);
                }
                Part::Pipeline(pipeline) => {
                    let place = Pipeline { life: pipeline.life, number: pipeline.number };
                    state.set_pipeline(pipeline.member, place);
                }
                Part::Session(session) => {
                    let held =
                        Session { timeout_ms: session.timeout_ms, attachment: session.attachment };
                    state.insert_session(SessionId(session.session), held);
                }
                Part::Node(node) => state.restore(node)?,
            }
        }
        if !state.nodes.contains_key("/") {
            return Err(SnapshotError::NoRoot);
        }
        Ok(state)
    }

    fn restore(&mut self, node: v1::Node) -> Result<(), SnapshotError> {
        if let Some((parent, name)) = split(&node.path) {
            let known = self.change_node(parent, |parent| parent.family.names.insert(name.into()));
            if known.is_none() {
                return Err(SnapshotError::Orphan { path: node.path });
            }
        }
        let path: Arc<str> = node.path.as_str().into();
        let node = node_from_wire(node);
        if node.is_ephemeral() {
            self.ephemerals.entry(node.owner).or_default().insert(Arc::clone(&path));
        }
        self.insert_node(path, Arc::new(node));
        Ok(())
    }
}

fn put(output: &mut BytesMut, part: Part) -> Result<(), prost::EncodeError> {
    let part = v1::SnapshotPart { part: Some(part) };
    output.reserve(part.encoded_len() + prost::length_delimiter_len(part.encoded_len()));
    part.encode_length_delimited(output)
}

fn node_to_wire(path: &str, node: &Node) -> v1::Node {
    v1::Node {
        path: path.to_owned(),
        data: node.data.clone(),
        acl: acl_to_wire(&node.acl),
        created_zxid: node.created_zxid.0,
        modified_zxid: node.modified_zxid.0,
        children_zxid: node.family.zxid.0,
        created_ms: node.created_ms,
        modified_ms: node.modified_ms,
        version: node.version,
        births: node.family.births,
        acl_version: node.acl_version,
        owner: node.owner.0,
    }
}

fn node_from_wire(node: v1::Node) -> Node {
    Node {
        data: node.data,
        acl: acl_from_wire(node.acl).into(),
        created_zxid: Zxid(node.created_zxid),
        modified_zxid: Zxid(node.modified_zxid),
        created_ms: node.created_ms,
        modified_ms: node.modified_ms,
        version: node.version,
        acl_version: node.acl_version,
        owner: SessionId(node.owner),
        family: Family { zxid: Zxid(node.children_zxid), births: node.births, ..Family::default() },
    }
}
