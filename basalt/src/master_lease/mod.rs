//! The masters' Kubernetes Lease: the only module of a role that talks to an API server.
//!
//! The Lease elects, and the coordinator's epoch protects. The keeper of this process reads and
//! writes the Lease. It lets the master campaign while this process holds the Lease, or when the
//! API server has not answered for longer than a Lease lasts. [`decide`] decides what to do with a
//! Lease that was read. Each round reads the Lease (the holder skips this, because it knows the
//! Lease), decides, writes on condition of the version that was read, and publishes the state.
//!
//! The operator creates the Lease, so that it is deleted with the cluster and the masters need no
//! right to create one. In addition, [`label`] lets a Service find the pod of the active master.

mod decide;
mod label;

use std::time::Duration;

use basalt_api::Timers;
use basalt_api::role_file::LeaseSettings;
use basalt_master::{ActiveMaster, LeaseGuard, LeaseGuardHandle, LeaseState};
use basalt_runtime::{Clock, Seams};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use decide::{KnownActive, LeaseAction, Record, Seen, decide};

/// The field manager of what masters write.
const FIELD_MANAGER: &str = "basalt-master";
/// How many times one round tries to write a Lease that others write at the same time.
const TRIES_MAX: usize = 3;

/// Keeps the Lease for the master of this process.
struct Keeper {
    api: Api<Lease>,
    name: String,
    identity: String,
    clock: Clock,
    pace: Pace,
    guard: LeaseGuardHandle,
    known: KnownActive,
    /// The Lease as last read or written. `None` if its state is unknown.
    found: Option<Lease>,
    seen: Option<Seen>,
    /// When the last successful renewal was sent. `None` if another process holds the Lease.
    renewed: Option<Instant>,
    /// When the API server last answered.
    answered: Instant,
    /// The master that has taken the Lease from this process while this one was active.
    lost_to: Option<String>,
}

/// The timers of the Lease.
#[derive(Clone, Copy, Debug)]
struct Pace {
    duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

/// Starts to keep the Lease that the role's file names, if it names one. Returns the guard, and the
/// task that releases the Lease after the master has ended.
pub(crate) async fn keep(
    settings: Option<&LeaseSettings>,
    process: &str,
    timers: &Timers,
    seams: &Seams,
) -> (LeaseGuard, Option<JoinHandle<()>>) {
    let Some(settings) = settings else { return (LeaseGuard::without_lease(), None) };
    let client = match Client::try_default().await {
        Ok(client) => client,
        Err(error) => {
            // A pod that was created before there was a Lease has no token.
            tracing::error!(%error, "cannot reach the API server: the coordinator elects alone");
            return (LeaseGuard::without_lease(), None);
        }
    };
    // The pod's name alone would also identify its next life.
    let identity = format!("{process}_{:016x}", seams.random.next_u64());
    let (guard, keeper) = LeaseGuard::new(identity.clone());
    let pace = Pace::of(timers);
    let pods = Api::namespaced(client.clone(), &settings.namespace);
    let active = keeper.active.clone();
    tokio::spawn(label::keep(pods, process.to_owned(), active, pace.duration));
    let keeper = Keeper::new(client, settings, identity, pace, seams.clock.clone(), keeper);
    (guard, Some(tokio::spawn(keeper.run())))
}

// === impl Pace ===

impl Pace {
    fn of(timers: &Timers) -> Self {
        Self {
            duration: timers.master_lease_duration,
            renew_deadline: timers.master_renew_deadline,
            retry_period: timers.master_retry_period,
        }
    }

    /// After this time without an answer, no process can know who holds the Lease.
    fn unreachable_after(&self) -> Duration {
        self.duration + self.retry_period
    }

    /// The timeout of one round. It leaves time for another round before the deadline.
    fn round_max(&self) -> Duration {
        self.renew_deadline / 2
    }
}

// === impl Keeper ===

impl Keeper {
    fn new(
        client: Client,
        settings: &LeaseSettings,
        identity: String,
        pace: Pace,
        clock: Clock,
        guard: LeaseGuardHandle,
    ) -> Self {
        Self {
            api: Api::namespaced(client, &settings.namespace),
            name: settings.name.clone(),
            identity,
            clock,
            pace,
            guard,
            known: KnownActive { active: ActiveMaster::Unknown, since: Instant::now() },
            found: None,
            seen: None,
            renewed: None,
            answered: Instant::now(),
            lost_to: None,
        }
    }

    /// Keeps the Lease while the master runs, then releases it.
    async fn run(mut self) {
        loop {
            let active = self.guard.active.borrow_and_update().clone();
            if active != self.known.active {
                self.known = KnownActive { active, since: Instant::now() };
            }
            let is_answered = self.round().await;
            self.publish();
            let pause = self.pause(is_answered);
            tokio::select! {
                biased;
                changed = self.guard.active.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
            }
        }
        // The master has ended: release its Lease. If that fails, the Lease expires by itself.
        self.known = KnownActive { active: ActiveMaster::Other, since: Instant::now() };
        self.round().await;
    }

    /// One round, with a timeout. Returns whether the API server answered.
    async fn round(&mut self) -> bool {
        let limit = self.pace.round_max();
        let failed = match timeout(limit, self.look_and_act()).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {limit:?}"),
        };
        // It is unknown whether a write took effect.
        self.found = None;
        if self.answered.elapsed() < self.pace.unreachable_after() {
            tracing::warn!(lease = self.name, failed, "the Lease was neither read nor written");
        }
        false
    }

    async fn look_and_act(&mut self) -> Result<(), kube::Error> {
        let is_known = self.found.is_some() && self.is_holder();
        if !is_known || self.known.active == ActiveMaster::Unknown {
            self.look().await?;
        }
        for _ in 0..TRIES_MAX {
            let Some(seen) = &self.seen else { return Ok(()) };
            let now = Instant::now();
            let action = decide(&self.identity, seen, &self.known, self.pace.duration, now);
            let holder = match action {
                LeaseAction::Wait => return Ok(()),
                LeaseAction::Yield(holder) => {
                    tracing::warn!(holder, "another master has acquired the Lease");
                    self.lost_to = Some(holder);
                    return Ok(());
                }
                LeaseAction::Hold if self.lost_to.is_some() => return Ok(()),
                LeaseAction::Hold => self.identity.clone(),
                LeaseAction::GiveBack => String::new(),
            };
            if self.write(holder).await? {
                return Ok(());
            }
            self.look().await?;
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        let asked = Instant::now();
        let found = self.api.get(&self.name).await?;
        self.note(found, asked);
        Ok(())
    }

    /// Makes `holder` the holder. Returns `false` if another process has changed the Lease first.
    async fn write(&mut self, holder: String) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.found.take() else { return Ok(false) };
        let was_holder = self.is_holder();
        let is_ours = holder == self.identity;
        lease.spec = Some(self.spec(lease.spec.unwrap_or_default(), holder));
        let asked = Instant::now();
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.api.replace(&self.name, &params, &lease).await {
            Ok(written) => self.note(written, asked),
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(false),
            Err(error) => return Err(error),
        }
        self.renewed = is_ours.then_some(asked);
        match (was_holder, is_ours) {
            (false, true) => tracing::info!(lease = self.name, "acquired the Lease"),
            (true, false) => tracing::info!(lease = self.name, "released the Lease"),
            _ => {}
        }
        Ok(true)
    }

    /// Records the Lease that the API server returned for a request sent at `asked`.
    fn note(&mut self, lease: Lease, asked: Instant) {
        let answered = Instant::now();
        let record = Record::of(&lease);
        if record.holder != self.identity {
            self.renewed = None;
        }
        self.seen = Some(match self.seen.take() {
            Some(seen) => seen.then(record, asked, answered),
            None => Seen::first(record, asked, answered),
        });
        self.found = Some(lease);
        self.answered = answered;
    }

    fn is_holder(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.record.holder == self.identity)
    }

    fn spec(&self, before: LeaseSpec, holder: String) -> LeaseSpec {
        let now = i64::try_from(self.clock.wall_ms()).ok();
        let now = now.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(MicroTime);
        let is_taken = holder == self.identity && !self.is_holder();
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(holder),
            lease_duration_seconds: i32::try_from(self.pace.duration.as_secs()).ok(),
            renew_time: now.clone(),
            acquire_time: if is_taken { now } else { before.acquire_time.clone() },
            lease_transitions: Some(transitions.saturating_add(i32::from(is_taken))),
            ..before
        }
    }

    fn publish(&self) {
        let state = self.state();
        self.guard.lease.send_if_modified(|known| {
            let is_new = *known != state;
            if is_new && state == LeaseState::Unreachable {
                let lease = self.name.as_str();
                tracing::warn!(
                    lease,
                    "the API server does not answer: the coordinator elects alone"
                );
            }
            *known = state;
            is_new
        });
    }

    fn state(&self) -> LeaseState {
        if let Some(holder) = &self.lost_to {
            LeaseState::Lost { holder: holder.clone() }
        } else if self.renewed.is_some_and(|sent| sent.elapsed() < self.pace.renew_deadline) {
            LeaseState::Held
        } else if self.answered.elapsed() >= self.pace.unreachable_after() {
            LeaseState::Unreachable
        } else {
            LeaseState::NotHeld
        }
    }

    /// The pause until the next round if the active master does not change before.
    fn pause(&self, is_answered: bool) -> Duration {
        match self.known.active {
            _ if !is_answered => self.pace.retry_period,
            // Leaves time for another attempt.
            _ if self.renewed.is_some() => {
                self.pace.renew_deadline.saturating_sub(self.pace.retry_period)
            }
            // There is nothing to take. This only finds out whether the API server answers.
            ActiveMaster::Other => self.pace.duration,
            _ => self.pace.retry_period,
        }
    }
}

// === impl Record ===

impl Record {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
        Self {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
            duration: seconds.map(Duration::from_secs),
            version: lease.metadata.resource_version.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod failover_tests;
#[cfg(test)]
mod tests;
