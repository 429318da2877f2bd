//! The replicated state, and methods to read it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use basalt_zk::proto::{Acl, SessionId, Zxid};
use bytes::Bytes;

use crate::tree::digest;
use crate::tree::node::{Family, Node};

/// The length of the key of the session passwords.
pub(crate) const SECRET_BYTES: usize = 32;

/// Everything that the members agree on.
///
/// Invariants: every node but the root has a parent, which lists its name. An ephemeral node has no
/// children, its owner is a session, and `ephemerals` lists it. Everything that the digest covers
/// is changed only by the methods that also update the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(super) nodes: BTreeMap<Arc<str>, Arc<Node>>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) ephemerals: BTreeMap<SessionId, BTreeSet<Arc<str>>>,
    pub(super) pipelines: BTreeMap<u64, Pipeline>,
    pub(super) secret: Option<[u8; SECRET_BYTES]>,
    /// Derived from all of the above (see `digest`).
    pub(super) digest: u64,
}

/// A session that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// How long the leader waits for a sign of life.
    pub(crate) timeout_ms: u32,
    /// The connection that it belongs to.
    pub(crate) attachment: u64,
}

/// How far a member's commands have been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pipeline {
    pub(crate) life: u64,
    pub(crate) number: u64,
}

/// The nodes that exist from the start and cannot be deleted.
pub(super) const FIXED_NODES: [&str; 4] =
    ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"];

// === impl State ===

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state that every cluster begins with.
    pub(crate) fn new() -> Self {
        let mut state = Self {
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            ephemerals: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            secret: None,
            digest: 0,
        };
        for path in FIXED_NODES {
            let node = Node {
                // Not null: Curator parses the data of /zookeeper/config without checking it.
                data: Some(Bytes::new()),
                acl: Acl::open().into(),
                created_zxid: Zxid(0),
                modified_zxid: Zxid(0),
                created_ms: 0,
                modified_ms: 0,
                version: 0,
                acl_version: 0,
                owner: SessionId::NONE,
                family: Family::default(),
            };
            if let Some((parent, name)) = split(path) {
                state.change_node(parent, |parent| parent.family.names.insert(name.into()));
            }
            state.insert_node(path.into(), Arc::new(node));
        }
        state
    }

    pub(crate) fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path).map(Arc::as_ref)
    }

    /// Changes the node at `path`, if there is one.
    pub(super) fn change_node<T>(
        &mut self,
        path: &str,
        change: impl FnOnce(&mut Node) -> T,
    ) -> Option<T> {
        let node = Arc::make_mut(self.nodes.get_mut(path)?);
        self.digest = self.digest.wrapping_sub(digest::of_node(path, node));
        let changed = change(node);
        self.digest = self.digest.wrapping_add(digest::of_node(path, node));
        Some(changed)
    }

    pub(super) fn insert_node(&mut self, path: Arc<str>, node: Arc<Node>) {
        self.remove_node(&path);
        self.digest = self.digest.wrapping_add(digest::of_node(&path, &node));
        self.nodes.insert(path, node);
    }

    pub(super) fn remove_node(&mut self, path: &str) -> Option<(Arc<str>, Arc<Node>)> {
        let (path, node) = self.nodes.remove_entry(path)?;
        self.digest = self.digest.wrapping_sub(digest::of_node(&path, &node));
        Some((path, node))
    }

    pub(super) fn insert_session(&mut self, id: SessionId, session: Session) {
        self.remove_session(id);
        self.digest = self.digest.wrapping_add(digest::of_session(id, &session));
        self.sessions.insert(id, session);
    }

    pub(super) fn remove_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.digest = self.digest.wrapping_sub(digest::of_session(id, &session));
        }
    }

    pub(super) fn set_pipeline(&mut self, member: u64, pipeline: Pipeline) {
        if let Some(last) = self.pipelines.insert(member, pipeline) {
            self.digest = self.digest.wrapping_sub(digest::of_pipeline(member, &last));
        }
        self.digest = self.digest.wrapping_add(digest::of_pipeline(member, &pipeline));
    }

    /// Sets the key of the session passwords, unless there already is one.
    pub(super) fn set_secret(&mut self, secret: [u8; SECRET_BYTES]) {
        if self.secret.is_none() {
            self.digest = self.digest.wrapping_add(digest::of_secret(&secret));
            self.secret = Some(secret);
        }
    }

    /// How many nodes there are.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// How many nodes there are below `path`.
    pub(crate) fn descendant_count(&self, path: &str) -> usize {
        if path == "/" {
            return self.nodes.len() - 1;
        }
        let first = format!("{path}/");
        let range = (Bound::Included(first.as_str()), Bound::Unbounded);
        self.nodes.range::<str, _>(range).take_while(|(below, _)| below.starts_with(&first)).count()
    }

    pub(crate) fn session(&self, session: SessionId) -> Option<Session> {
        self.sessions.get(&session).copied()
    }

    /// All sessions, by id.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (SessionId, Session)> + '_ {
        self.sessions.iter().map(|(id, session)| (*id, *session))
    }

    /// How many sessions there are.
    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The ephemeral nodes of `session`, sorted.
    pub(crate) fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = &str> {
        self.ephemerals.get(&session).into_iter().flatten().map(Arc::as_ref)
    }

    /// How many ephemeral nodes there are.
    pub(crate) fn ephemeral_count(&self) -> usize {
        self.ephemerals.values().map(BTreeSet::len).sum()
    }

    /// The key of the session passwords, once there is one.
    pub(crate) fn secret(&self) -> Option<&[u8; SECRET_BYTES]> {
        self.secret.as_ref()
    }

    /// How far the commands of `member` have been applied.
    pub(crate) fn pipeline(&self, member: u64) -> Option<Pipeline> {
        self.pipelines.get(&member).copied()
    }
}

/// A path's parent and its own name. `None` for the root.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/')? {
        (_, "") => None,
        ("", name) => Some(("/", name)),
        (parent, name) => Some((parent, name)),
    }
}
