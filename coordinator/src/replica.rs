//! This member's copy of the state, the watches on it, and the clients that wait for answers.
//!
//! A command is applied under one lock: first the events are queued for the clients that watch,
//! then the answer for the client that sent the command. A client that reads the new state gets its
//! reply after them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use basalt_runtime::WITNESS;
use basalt_zk::proto::{SessionId, Zxid};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::outgoing::Outgoing;
use crate::proposals::{ProposalOutcome, Proposals};
use crate::raft::types::{Entry, LogId, Payload, StoredMembership, term};
use crate::tree::{Applied, Command, DIGEST_VERSION, SessionChange, State};
use crate::watch::Watches;
use crate::wire::v1;

/// This member's copy of the state. Locks are taken in the order of the fields.
pub(crate) struct Replica {
    member: u64,
    contents: RwLock<Contents>,
    /// The watches of this member's clients.
    pub(crate) watches: Mutex<Watches>,
    clients: Mutex<Clients>,
    /// The commands that are not applied yet.
    pub(crate) proposals: Proposals,
    /// The last transaction that was applied.
    applied: watch::Sender<Zxid>,
}

struct Contents {
    state: State,
    last: Option<LogId>,
    membership: StoredMembership,
    digests: Digests,
}

/// The digests of the state as of each of the last entries.
#[derive(Default)]
struct Digests(VecDeque<(u64, u64)>);

/// The sessions that are connected here.
type Clients = BTreeMap<SessionId, Attached>;

struct Attached {
    attachment: u64,
    outgoing: Arc<Outgoing>,
}

/// How many entries back the state can be compared with the states of others.
const DIGESTS_MAX: usize = 8192;

// === impl Replica ===

impl Replica {
    /// A copy that begins with `state`, as of `last`.
    pub(crate) fn new(
        member: u64,
        proposals: Proposals,
        state: State,
        last: Option<LogId>,
        membership: StoredMembership,
        watch_bytes_max: usize,
    ) -> Self {
        Self {
            member,
            contents: RwLock::new(Contents::new(state, last, membership)),
            watches: Mutex::new(Watches::new(watch_bytes_max)),
            clients: Mutex::default(),
            proposals,
            applied: watch::Sender::new(zxid(last)),
        }
    }

    /// Calls `look` with the state and the last transaction in it. Frames that `look` queues for a
    /// client come after all events of that state and before all later ones.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State, Zxid) -> T) -> T {
        let contents = self.contents.read();
        look(&contents.state, zxid(contents.last))
    }

    /// The last transaction that was applied.
    pub(crate) fn applied(&self) -> Zxid {
        *self.applied.borrow()
    }

    /// Waits until `wanted` is applied.
    pub(crate) async fn wait_applied(&self, wanted: Zxid) {
        let mut applied = self.applied.subscribe();
        // The sender lives as long as `self`.
        let _applied = applied.wait_for(|applied| *applied >= wanted).await;
    }

    /// Applies one entry of the log.
    pub(crate) fn apply(&self, entry: Entry) {
        let id = entry.log_id;
        let mut contents = self.contents.write();
        assert!(contents.last < Some(id), "entries are applied in order");
        match entry.payload {
            Payload::Blank => {}
            Payload::Membership(membership) => {
                contents.membership = StoredMembership::new(Some(id), membership);
            }
            Payload::Normal(command) => {
                let applied = contents.state.apply(id.index, term(&id), &command);
                self.publish(zxid(Some(id)), &command, applied);
            }
        }
        contents.last = Some(id);
        let digest = contents.state.digest();
        contents.digests.note(id.index, digest);
        drop(contents);
        self.applied.send_replace(zxid(Some(id)));
    }

    /// Notifies this member's clients of the result of a command.
    fn publish(&self, zxid: Zxid, command: &Command, applied: Applied) {
        if !applied.events.is_empty() {
            let mut watches = self.watches.lock();
            for event in &applied.events {
                watches.fire(event);
            }
        }
        if let Some(verdict) = applied.verdict
            && let Some(origin) = command.origin
            && let Some(answer) = self.proposals.settle(origin)
        {
            answer(ProposalOutcome::Applied { zxid, verdict });
        }
        match applied.session {
            Some(SessionChange::Attached { session, attachment }) => {
                self.disconnect_unless(session, Some(attachment))
            }
            Some(SessionChange::Closed { session }) => self.disconnect_unless(session, None),
            None => {}
        }
    }

    /// The state, for a snapshot. Cheap: nodes are shared until they change.
    pub(crate) fn freeze(&self) -> (State, Option<LogId>, StoredMembership) {
        let contents = self.contents.read();
        (contents.state.clone(), contents.last, contents.membership.clone())
    }

    /// Replaces the state with a snapshot of the leader. Events were missed, so all clients are
    /// disconnected. When they reconnect, they ask for what they missed.
    pub(crate) fn install(&self, state: State, last: Option<LogId>, membership: StoredMembership) {
        let pipeline = state.pipeline(self.member);
        let new = Contents::new(state, last, membership);
        let mut contents = self.contents.write();
        // Drop the old state after the lock is released, because this takes long for a large state.
        let replaced = std::mem::replace(&mut *contents, new);
        self.disconnect_all();
        if let Some(pipeline) = pipeline {
            for answer in self.proposals.settle_unknown(pipeline.life, pipeline.number) {
                answer(ProposalOutcome::Unknown);
            }
        }
        drop(contents);
        self.applied.send_replace(zxid(last));
        drop(replaced);
    }

    /// The digest of the state as of the last entry that was applied.
    pub(crate) fn checkpoint(&self) -> Option<v1::Checkpoint> {
        let contents = self.contents.read();
        let (index, digest) = contents.digests.0.back().copied()?;
        Some(v1::Checkpoint { index, digest, version: DIGEST_VERSION })
    }

    /// The digest of the state as of entry `index`, if it is one of the last entries that were
    /// applied.
    pub(crate) fn digest_at(&self, index: u64) -> Option<u64> {
        let contents = self.contents.read();
        let digests = &contents.digests.0;
        let place = digests.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        digests.get(place).map(|(_, digest)| *digest)
    }

    /// The last applied entry and the membership, which openraft reads when it starts.
    pub(crate) fn applied_state(&self) -> (Option<LogId>, StoredMembership) {
        let contents = self.contents.read();
        (contents.last, contents.membership.clone())
    }

    /// Binds the session to this connection. A connection that it had here before is closed.
    pub(crate) fn connect(&self, session: SessionId, attachment: u64, outgoing: &Arc<Outgoing>) {
        let attached = Attached { attachment, outgoing: Arc::clone(outgoing) };
        if let Some(older) = self.clients.lock().insert(session, attached) {
            older.outgoing.close();
        }
    }

    /// Removes a connection that has ended.
    pub(crate) fn disconnected(&self, session: SessionId, attachment: u64, connection: u64) {
        self.watches.lock().remove_connection(connection);
        let mut clients = self.clients.lock();
        if clients.get(&session).is_some_and(|attached| attached.attachment == attachment) {
            clients.remove(&session);
        }
    }

    /// Closes the session's connection once everything queued is written, unless it is
    /// `attachment`.
    fn disconnect_unless(&self, session: SessionId, attachment: Option<u64>) {
        let mut clients = self.clients.lock();
        if clients.get(&session).is_some_and(|attached| Some(attached.attachment) != attachment)
            && let Some(attached) = clients.remove(&session)
        {
            attached.outgoing.finish();
        }
    }

    /// Closes all client connections.
    pub(crate) fn disconnect_all(&self) {
        for attached in std::mem::take(&mut *self.clients.lock()).into_values() {
            attached.outgoing.close();
        }
    }

    /// All client connections, by session.
    pub(crate) fn connections(&self) -> Vec<(SessionId, Arc<Outgoing>)> {
        let clients = self.clients.lock();
        clients
            .iter()
            .map(|(session, attached)| (*session, Arc::clone(&attached.outgoing)))
            .collect()
    }
}

// === impl Contents ===

impl Contents {
    fn new(state: State, last: Option<LogId>, membership: StoredMembership) -> Self {
        let mut digests = Digests::default();
        if let Some(last) = last {
            digests.note(last.index, state.digest());
        }
        Self { state, last, membership, digests }
    }
}

// === impl Digests ===

impl Digests {
    fn note(&mut self, index: u64, digest: u64) {
        tracing::trace!(target: WITNESS, index, digest, "applied");
        if self.0.len() >= DIGESTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((index, digest));
    }
}

/// The zxid of a transaction is its index in the log.
fn zxid(last: Option<LogId>) -> Zxid {
    Zxid(last.map_or(0, |last| i64::try_from(last.index).unwrap_or(i64::MAX)))
}
