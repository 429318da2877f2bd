//! Locks on tables and regions. They serialize procedures and moves.
//!
//! A procedure that changes a table holds the table's exclusive lock from its beginning to its end.
//! A move holds the table's shared lock and its region's exclusive one. Requests are granted in the
//! order of their arrival, so that neither starves the other. A holder of both locks requests the
//! table's lock first, and the recovery of a server needs no lock, so there are no deadlocks.
//!
//! The locks of a procedure are part of its record. A new active master requests them again in the
//! order of the procedures' ids, before it moves any region. Moves have no record: they end with
//! their master, and a half-finished move is visible in the region's record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use basalt_model::{EncodedRegionName, TableName};
use basalt_planted::{Rule, is_off};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How many requests may wait for one lock.
const WAITING_MAX: usize = 256;

/// A resource that can be locked.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Resource {
    Table(TableName),
    Region(EncodedRegionName),
}

/// Whether several holders may share the lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
}

/// The holder of a lock, or a waiter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holder {
    /// A procedure, by its id.
    Procedure(u64),
    /// The move of a region.
    Move(EncodedRegionName),
}

/// A locked resource, for reports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LockedResource {
    pub(crate) resource: Resource,
    pub(crate) mode: Mode,
    pub(crate) holders: Vec<Holder>,
    pub(crate) waiting: Vec<Holder>,
}

/// Too many requests wait for a lock.
#[derive(Debug, thiserror::Error)]
#[error("{max} requests are already waiting for the lock of {0:?}", max = WAITING_MAX)]
pub(crate) struct TooManyWaiting(Resource);

/// All locks of a term. A handle; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Locks {
    table: Arc<Mutex<LockTable>>,
    /// Counts the released locks.
    changes: watch::Sender<u64>,
}

/// A request for a lock, granted or waiting. Dropping it releases the lock or withdraws the
/// request.
#[derive(Debug)]
pub(crate) struct Lock {
    locks: Locks,
    resource: Resource,
    ticket: u64,
}

/// The holders and waiters, without any I/O.
#[derive(Debug, Default)]
struct LockTable {
    entries: BTreeMap<Resource, Entry>,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct Entry {
    held: BTreeMap<u64, Request>,
    waiting: VecDeque<(u64, Request)>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    mode: Mode,
    holder: Holder,
}

// === impl Locks ===

impl Default for Locks {
    fn default() -> Self {
        Self { table: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl Locks {
    /// Requests a lock. [`Lock::granted`] waits until it is granted.
    ///
    /// # Errors
    /// [`TooManyWaiting`].
    pub(crate) fn request(
        &self,
        resource: Resource,
        mode: Mode,
        holder: Holder,
    ) -> Result<Lock, TooManyWaiting> {
        let ticket = self.table.lock().request(resource.clone(), Request { mode, holder })?;
        Ok(Lock { locks: self.clone(), resource, ticket })
    }

    /// All locked resources, in their order.
    pub(crate) fn list(&self) -> Vec<LockedResource> {
        self.table.lock().list()
    }
}

// === impl Lock ===

impl Lock {
    /// Waits until the lock is held.
    pub(crate) async fn granted(&self) {
        let mut changes = self.locks.changes.subscribe();
        while !self.is_held() && !is_off(Rule::TableLock) {
            // The sender lives as long as this lock does.
            let _ = changes.changed().await;
        }
    }

    /// The resource of the lock.
    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    fn is_held(&self) -> bool {
        self.locks.table.lock().is_held(&self.resource, self.ticket)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.locks.table.lock().release(&self.resource, self.ticket);
        self.locks.changes.send_modify(|changes| *changes += 1);
    }
}

// === impl LockTable ===

impl LockTable {
    fn request(&mut self, resource: Resource, request: Request) -> Result<u64, TooManyWaiting> {
        let entry = self.entries.entry(resource.clone()).or_default();
        if entry.waiting.len() >= WAITING_MAX {
            return Err(TooManyWaiting(resource));
        }
        self.next_ticket += 1;
        entry.waiting.push_back((self.next_ticket, request));
        entry.grant();
        Ok(self.next_ticket)
    }

    fn is_held(&self, resource: &Resource, ticket: u64) -> bool {
        self.entries.get(resource).is_some_and(|entry| entry.held.contains_key(&ticket))
    }

    /// Releases a lock, or withdraws the request.
    fn release(&mut self, resource: &Resource, ticket: u64) {
        let Some(entry) = self.entries.get_mut(resource) else { return };
        entry.held.remove(&ticket);
        entry.waiting.retain(|(waiting, _)| *waiting != ticket);
        entry.grant();
        if entry.held.is_empty() {
            self.entries.remove(resource);
        }
    }

    fn list(&self) -> Vec<LockedResource> {
        let locked = self.entries.iter().map(|(resource, entry)| LockedResource {
            resource: resource.clone(),
            mode: if entry.is_shared() { Mode::Shared } else { Mode::Exclusive },
            holders: entry.held.values().map(|request| request.holder).collect(),
            waiting: entry.waiting.iter().map(|(_, request)| request.holder).collect(),
        });
        locked.collect()
    }
}

// === impl Entry ===

impl Entry {
    /// Grants requests in their order, up to the first one that conflicts with the held locks.
    fn grant(&mut self) {
        while let Some((ticket, request)) = self.waiting.front().copied() {
            let fits = match request.mode {
                Mode::Exclusive => self.held.is_empty(),
                Mode::Shared => self.is_shared(),
            };
            if !fits {
                return;
            }
            self.waiting.pop_front();
            self.held.insert(ticket, request);
        }
    }

    fn is_shared(&self) -> bool {
        self.held.values().all(|request| request.mode == Mode::Shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn table(name: &str) -> Resource {
        Resource::Table(name.parse().unwrap())
    }

    fn moving() -> Holder {
        Holder::Move(EncodedRegionName::from_digest([7; 16]))
    }

    #[test]
    fn locks_are_granted_in_the_order_of_the_requests() {
        let locks = Locks::default();
        let request = |mode, holder| locks.request(table("t"), mode, holder).unwrap();
        let first = request(Mode::Shared, moving());
        let second = request(Mode::Shared, moving());
        let procedure = request(Mode::Exclusive, Holder::Procedure(1));
        let late = request(Mode::Shared, moving());
        let held = || [&first, &second, &procedure, &late].map(Lock::is_held);
        assert_eq!(held(), [true, true, false, false], "a later move does not pass a procedure");
        let other = locks.request(table("u"), Mode::Exclusive, Holder::Procedure(2)).unwrap();
        assert!(other.is_held());
        drop(first);
        assert!(!procedure.is_held());
        drop(second);
        assert!(procedure.is_held() && !late.is_held());
        drop(procedure);
        assert!(late.is_held());
    }

    #[test]
    fn who_waits_no_more_is_in_nobodys_way() {
        let locks = Locks::default();
        let request = |mode| locks.request(table("t"), mode, moving()).unwrap();
        let first = request(Mode::Shared);
        let given_up = request(Mode::Exclusive);
        let late = request(Mode::Shared);
        assert_eq!(late.granted().now_or_never(), None);
        drop(given_up);
        assert_eq!(late.granted().now_or_never(), Some(()));
        drop((first, late));
        assert_eq!(locks.list(), []);
    }

    #[test]
    fn who_holds_and_who_waits_is_listed() {
        let locks = Locks::default();
        let request = |mode, holder| locks.request(table("t"), mode, holder).unwrap();
        let _held = request(Mode::Exclusive, Holder::Procedure(4));
        let _waits = request(Mode::Shared, moving());
        let listed = LockedResource {
            resource: table("t"),
            mode: Mode::Exclusive,
            holders: vec![Holder::Procedure(4)],
            waiting: vec![moving()],
        };
        assert_eq!(locks.list(), [listed]);
    }

    #[test]
    fn no_more_than_so_many_wait() {
        let locks = Locks::default();
        let request = || locks.request(table("t"), Mode::Exclusive, moving());
        let waiting: Vec<_> = (0..=WAITING_MAX).map(|_| request().unwrap()).collect();
        assert!(request().is_err());
        drop(waiting);
        assert!(request().is_ok());
    }

    #[tokio::test]
    async fn a_lock_that_is_let_go_wakes_the_next() {
        let locks = Locks::default();
        let request = || locks.request(table("t"), Mode::Exclusive, moving()).unwrap();
        let (held, next) = (request(), request());
        let waiting = tokio::spawn(async move { next.granted().await });
        tokio::task::yield_now().await;
        drop(held);
        waiting.await.unwrap();
    }
}
