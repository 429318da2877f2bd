//! Keepers of one Lease with an API server of a few lines, under a paused clock.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;

use super::*;

pub(super) const PACE: Pace = Pace {
    duration: Duration::from_secs(2),
    renew_deadline: Duration::from_millis(1_333),
    retry_period: Duration::from_millis(400),
};
/// A moment in which keepers finish everything that they do immediately.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The contents of the API server.
#[derive(Default)]
struct Store {
    lease: Lease,
    version: u64,
    writes: u64,
    is_away: bool,
}

/// An API server with one Lease.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<Store>>);

/// A keeper, and its guard.
struct Master {
    guard: LeaseGuard,
    keeping: JoinHandle<()>,
    lease: tokio::sync::watch::Receiver<LeaseState>,
}

// === impl Server ===

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let answering = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(answering, "prod")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        assert!(request.uri().path().ends_with("/namespaces/prod/leases/demo-master"));
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let mut store = self.0.lock();
        if store.is_away {
            return refusal(StatusCode::SERVICE_UNAVAILABLE);
        }
        if head.method == Method::PUT {
            let mut written: Lease = serde_json::from_slice(&body).unwrap();
            let seen = written.metadata.resource_version.take().unwrap();
            if seen != store.version.to_string() {
                return refusal(StatusCode::CONFLICT);
            }
            store.writes += 1;
            store.put(written);
        }
        Response::new(Body::from(serde_json::to_vec(&store.lease).unwrap()))
    }

    pub(super) fn holder(&self) -> String {
        Record::of(&self.0.lock().lease).holder
    }

    fn writes(&self) -> u64 {
        self.0.lock().writes
    }

    pub(super) fn go_away(&self, is_away: bool) {
        self.0.lock().is_away = is_away;
    }

    /// Another process, `holder`, writes the Lease.
    pub(super) fn written_by(&self, holder: &str) {
        let mut store = self.0.lock();
        let mut lease = store.lease.clone();
        lease.spec.get_or_insert_default().holder_identity = Some(holder.to_owned());
        store.put(lease);
    }

    pub(super) fn with_lease_of(holder: &str) -> Self {
        let server = Self::default();
        server.written_by(holder);
        server
    }

    pub(super) fn keeper(&self, identity: &str, pace: Pace, guard: LeaseGuardHandle) -> Keeper {
        let settings =
            LeaseSettings { namespace: "prod".to_owned(), name: "demo-master".to_owned() };
        let clock = Seams::system().clock;
        Keeper::new(self.client(), &settings, identity.to_owned(), pace, clock, guard)
    }

    fn master(&self, identity: &str) -> Master {
        let (guard, keeper) = LeaseGuard::new(identity.to_owned());
        let lease = keeper.lease.subscribe();
        let keeper = self.keeper(identity, PACE, keeper);
        Master { guard, keeping: tokio::spawn(keeper.run()), lease }
    }
}

// === impl Store ===

impl Store {
    fn put(&mut self, lease: Lease) {
        self.lease = lease;
        self.version += 1;
        self.lease.metadata.name = Some("demo-master".to_owned());
        self.lease.metadata.resource_version = Some(self.version.to_string());
    }
}

fn refusal(code: StatusCode) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": code.as_str(), "reason": "Refused", "code": code.as_u16(),
    });
    let mut response = Response::new(Body::from(serde_json::to_vec(&status).unwrap()));
    *response.status_mut() = code;
    response
}

// === impl Master ===

impl Master {
    /// The coordinator reports which master is active. Returns the state of the Lease after that.
    async fn sees(&self, active: ActiveMaster) -> LeaseState {
        self.guard.report(active);
        self.after(AT_ONCE).await
    }

    async fn after(&self, time: Duration) -> LeaseState {
        tokio::time::sleep(time).await;
        self.lease.borrow().clone()
    }
}

fn vacant(last_holder: &str) -> ActiveMaster {
    ActiveMaster::Absent { last_holder: last_holder.to_owned() }
}

fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_taken_renewed_and_given_back_at_the_end() {
    let server = Server::with_lease_of("");
    let master = server.master("a");
    assert_eq!(master.after(second(10)).await, LeaseState::NotHeld);
    assert_eq!(server.writes(), 0);
    assert_eq!(master.sees(vacant("")).await, LeaseState::Held);
    assert_eq!(master.sees(ActiveMaster::This).await, LeaseState::Held);
    assert_eq!(server.holder(), "a");
    let spec = server.0.lock().lease.spec.clone().unwrap();
    assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(2), Some(1)));
    let before = server.writes();
    assert_eq!(master.after(second(60)).await, LeaseState::Held);
    let renewals = server.writes() - before;
    assert!((60..=70).contains(&renewals), "{renewals} renewals in a minute");
    drop(master.guard);
    master.keeping.await.unwrap();
    assert_eq!(server.holder(), "");
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_living_master_is_left_alone_and_that_of_a_dead_one_taken_at_once() {
    let server = Server::with_lease_of("a");
    let standby = server.master("b");
    assert_eq!(standby.sees(ActiveMaster::Other).await, LeaseState::NotHeld);
    // However long the Lease has not been renewed: the active master may be cut off from the API
    // server.
    assert_eq!(standby.after(second(600)).await, LeaseState::NotHeld);
    assert_eq!(server.writes(), 0);
    assert_eq!(standby.sees(vacant("a")).await, LeaseState::Held);
    assert_eq!(server.holder(), "b");
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_another_candidate_is_taken_when_it_has_lapsed() {
    let server = Server::with_lease_of("c");
    let standby = server.master("b");
    standby.sees(vacant("a")).await;
    for _ in 0..5 {
        server.written_by("c");
        assert_eq!(standby.after(second(1)).await, LeaseState::NotHeld);
    }
    assert_eq!(standby.after(second(3)).await, LeaseState::Held);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_find_the_seat_vacant_one_gets_the_lease() {
    let server = Server::with_lease_of("gone");
    let (a, b) = (server.master("a"), server.master("b"));
    let states = tokio::join!(a.sees(vacant("gone")), b.sees(vacant("gone")));
    let states = [states.0, states.1];
    assert_eq!(states.iter().filter(|state| **state == LeaseState::Held).count(), 1, "{states:?}");
    // A holder that cannot become active lets the Lease expire.
    let (holder, other) = if states[0] == LeaseState::Held { (&a, &b) } else { (&b, &a) };
    assert_eq!(holder.sees(ActiveMaster::Unknown).await, LeaseState::Held);
    assert_eq!(holder.after(second(2)).await, LeaseState::NotHeld);
    assert_eq!(other.after(second(2)).await, LeaseState::Held);
}

#[tokio::test(start_paused = true)]
async fn with_the_server_away_the_gate_opens_and_who_sits_takes_the_lease_when_it_is_back() {
    let server = Server::with_lease_of("");
    let (a, b) = (server.master("a"), server.master("b"));
    assert_eq!(a.sees(vacant("")).await, LeaseState::Held);
    tokio::join!(a.sees(ActiveMaster::This), b.sees(ActiveMaster::Other));
    server.go_away(true);
    tokio::time::sleep(second(1)).await;
    assert_eq!(*b.lease.borrow(), LeaseState::NotHeld);
    tokio::time::sleep(second(120)).await;
    assert_eq!(*a.lease.borrow(), LeaseState::Unreachable);
    assert_eq!(*b.lease.borrow(), LeaseState::Unreachable);
    // `a` dies without releasing the Lease, and `b` becomes active.
    a.keeping.abort();
    assert_eq!(b.sees(vacant("a")).await, LeaseState::Unreachable);
    assert_eq!(b.sees(ActiveMaster::This).await, LeaseState::Unreachable);
    server.go_away(false);
    // The last renewal of the dead process is no sign of life.
    server.written_by("a");
    assert_eq!(b.after(second(1)).await, LeaseState::NotHeld);
    assert_eq!(b.after(second(3)).await, LeaseState::Held);
    assert_eq!(server.holder(), "b");
}

#[tokio::test(start_paused = true)]
async fn who_sits_yields_to_one_that_has_taken_the_lease_and_leaves_it_alone() {
    let server = Server::with_lease_of("");
    let master = server.master("a");
    master.sees(vacant("")).await;
    assert_eq!(master.sees(ActiveMaster::This).await, LeaseState::Held);
    server.written_by("b");
    let lost = LeaseState::Lost { holder: "b".to_owned() };
    assert_eq!(master.after(second(2)).await, lost);
    drop(master.guard);
    master.keeping.await.unwrap();
    assert_eq!(server.holder(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_overtaken_on_the_way_to_the_seat_gives_the_lease_back() {
    let server = Server::with_lease_of("");
    let master = server.master("a");
    assert_eq!(master.sees(vacant("")).await, LeaseState::Held);
    assert_eq!(master.sees(ActiveMaster::Other).await, LeaseState::NotHeld);
    assert_eq!(server.holder(), "");
}
