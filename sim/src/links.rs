//! The links between machines: each direction of each link is open, held or refused.
//!
//! *Held* is how a partition or a stopped machine appears to TCP: data arrives in order once the
//! link is open again, and until then neither end notices anything. *Refused* is how a firewall
//! appears that answers: connections are reset and new ones are refused, although the process
//! behind it is alive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The links of a cluster; a cheap handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How many faults hold each direction.
    held: BTreeMap<Direction, u32>,
    /// The pairs of machines whose connections are refused, each in the order of their names.
    refused: BTreeSet<Direction>,
    /// How often the connections of each pair were reset.
    resets: BTreeMap<Direction, u64>,
    /// Tasks that wait for a link to be released.
    waiting: Vec<Waker>,
    /// Tasks that read, by pair and connection: a reset must wake them.
    readers: BTreeMap<Direction, BTreeMap<u64, Waker>>,
    next_connection: u64,
}

/// One end of a connection, as the links see it.
#[derive(Debug)]
pub(crate) struct LinkedEnd {
    links: Links,
    own: Arc<str>,
    peer: Arc<str>,
    number: u64,
    /// How often the connections of the pair had been reset when this one was opened.
    resets: u64,
}

/// From one machine to another.
pub(crate) type Direction = (Arc<str>, Arc<str>);

/// The state of the link, as one end of a connection sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Passage {
    Open,
    Reset,
}

// === impl Links ===

impl Links {
    /// Lets nothing from `from` arrive at `to` until it is released as often as it was held.
    pub(crate) fn hold(&self, from: &str, to: &str) {
        *self.0.lock().held.entry((from.into(), to.into())).or_default() += 1;
    }

    /// Undoes one [`Links::hold`].
    pub(crate) fn release(&self, from: &str, to: &str) {
        let mut state = self.0.lock();
        if let Some(count) = state.held.get_mut(&(from.into(), to.into())) {
            *count = count.saturating_sub(1);
        }
        state.wake();
    }

    /// Resets all connections between two machines, and refuses new ones.
    pub(crate) fn refuse(&self, one: &str, other: &str) {
        let pair = pair(one, other);
        let mut state = self.0.lock();
        *state.resets.entry(pair.clone()).or_default() += 1;
        for reader in state.readers.remove(&pair).unwrap_or_default().into_values() {
            reader.wake();
        }
        state.refused.insert(pair);
        state.wake();
    }

    /// Lets two machines connect again.
    pub(crate) fn accept(&self, one: &str, other: &str) {
        self.0.lock().refused.remove(&pair(one, other));
    }

    /// Registers a connection that `own` is about to open, or has accepted.
    pub(crate) fn connection(&self, own: &Arc<str>, peer: &Arc<str>) -> LinkedEnd {
        let mut state = self.0.lock();
        state.next_connection += 1;
        LinkedEnd {
            links: self.clone(),
            own: Arc::clone(own),
            peer: Arc::clone(peer),
            number: state.next_connection,
            resets: state.resets(&pair(own, peer)),
        }
    }

    pub(crate) fn is_refused(&self, one: &str, other: &str) -> bool {
        self.0.lock().refused.contains(&pair(one, other))
    }

    /// Waits until neither direction between two machines is held.
    pub(crate) async fn open(&self, one: &Arc<str>, other: &Arc<str>) {
        std::future::poll_fn(|context| {
            let mut state = self.0.lock();
            let there = (Arc::clone(one), Arc::clone(other));
            let back = (Arc::clone(other), Arc::clone(one));
            if state.is_held(&there) || state.is_held(&back) {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

// === impl LinkedEnd ===

impl LinkedEnd {
    /// Ready once data from the other end may be read here.
    pub(crate) fn poll_read(&self, context: &Context<'_>) -> Poll<Passage> {
        let mut state = self.links.0.lock();
        let pair = pair(&self.own, &self.peer);
        if state.resets(&pair) > self.resets {
            return Poll::Ready(Passage::Reset);
        }
        let waker = context.waker().clone();
        state.readers.entry(pair).or_default().insert(self.number, waker.clone());
        if state.is_held(&(Arc::clone(&self.peer), Arc::clone(&self.own))) {
            state.waiting.push(waker);
            return Poll::Pending;
        }
        Poll::Ready(Passage::Open)
    }

    /// Whether the connection was reset.
    pub(crate) fn is_reset(&self) -> bool {
        self.links.0.lock().resets(&pair(&self.own, &self.peer)) > self.resets
    }

    /// Whether data from the other end is held back.
    pub(crate) fn is_unheard(&self) -> bool {
        self.links.0.lock().is_held(&(Arc::clone(&self.peer), Arc::clone(&self.own)))
    }
}

impl Drop for LinkedEnd {
    fn drop(&mut self) {
        let mut state = self.links.0.lock();
        if let Some(readers) = state.readers.get_mut(&pair(&self.own, &self.peer)) {
            readers.remove(&self.number);
        }
    }
}

// === impl State ===

impl State {
    fn resets(&self, pair: &Direction) -> u64 {
        self.resets.get(pair).copied().unwrap_or_default()
    }

    fn is_held(&self, direction: &Direction) -> bool {
        self.held.get(direction).is_some_and(|count| *count > 0)
    }

    fn wake(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }
}

fn pair(one: &str, other: &str) -> Direction {
    if one < other { (one.into(), other.into()) } else { (other.into(), one.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_is_held_until_each_fault_has_let_it_go() {
        let links = Links::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let (end_of_a, end_of_b) = (links.connection(&a, &b), links.connection(&b, &a));
        links.hold("a", "b");
        links.hold("a", "b");
        assert!(end_of_b.is_unheard() && !end_of_a.is_unheard());
        links.release("a", "b");
        assert!(end_of_b.is_unheard());
        links.release("a", "b");
        assert!(!end_of_b.is_unheard());
    }

    #[tokio::test]
    async fn a_reset_reaches_a_reader_and_not_the_next_connection() {
        let links = Links::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let end = links.connection(&a, &b);
        let mut reads = Box::pin(std::future::poll_fn(|context| match end.poll_read(context) {
            Poll::Ready(Passage::Reset) => Poll::Ready(()),
            _ => Poll::Pending,
        }));
        assert!(futures::poll!(&mut reads).is_pending());
        links.refuse("b", "a");
        assert!(links.is_refused("a", "b"));
        reads.await;
        links.accept("a", "b");
        let next = links.connection(&b, &a);
        let context = Context::from_waker(Waker::noop());
        assert_eq!(next.poll_read(&context), Poll::Ready(Passage::Open));
    }
}
