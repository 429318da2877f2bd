//! Only one operator is active at a time: the one that holds the Lease.
//!
//! A process uses only its own clock to decide whether a holder has given up: it measures how long
//! the Lease has been unchanged since it first saw that version. The times in the Lease are for
//! people. Losing the Lease ends the process. Two operators at once would be a nuisance but not
//! dangerous, because every round does the same, whichever operator runs it.
//! round does the same whoever runs it.

use std::time::Duration;

use basalt_runtime::{Clock, Shutdown};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use crate::error::Error;
use crate::names::FIELD_MANAGER;

/// A holder that has not renewed for this long is gone.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long gives up.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the holder renews, and how often the others read the Lease.
const PERIOD: Duration = Duration::from_secs(2);
/// How long the API server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The Lease, as one process sees it.
pub(crate) struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    clock: Clock,
}

/// How long the Lease has been unchanged.
struct Seen {
    version: Option<String>,
    since: Instant,
}

// === impl Election ===

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, identity: &str, clock: Clock) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: FIELD_MANAGER.to_owned(),
            identity: identity.to_owned(),
            clock,
        }
    }

    /// Waits until this process holds the Lease.
    pub(crate) async fn acquire(&self) {
        let mut seen = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "acquiring the Lease failed: trying again"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.name.clone());
            lease.spec = Some(self.spec(&LeaseSpec::default(), &self.identity));
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        let known = seen.take().filter(|seen| seen.version == version);
        let now = known.unwrap_or_else(|| Seen { version, since: Instant::now() });
        let is_given_up = now.since.elapsed() >= DURATION;
        *seen = Some(now);
        if holder.is_empty() || holder == self.identity || is_given_up {
            lease.spec = Some(self.spec(&spec, &self.identity));
            return won(self.api.replace(&self.name, &PostParams::default(), &lease).await);
        }
        Ok(false)
    }

    /// Renews until asked to stop, then releases the Lease.
    ///
    /// # Errors
    /// Another operator holds the Lease, or may acquire it soon.
    pub(crate) async fn hold(&self, stop: &Shutdown) -> Result<(), Error> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PERIOD) => {}
            }
            match timeout(ANSWER_TIMEOUT, self.write(&self.identity)).await {
                Ok(Ok(None)) => renewed = Instant::now(),
                Ok(Ok(Some(holder))) => {
                    return Err(Error::Deposed { lease: self.name.clone(), holder });
                }
                Ok(Err(error)) => tracing::warn!(%error, "renewing the Lease failed"),
                Err(_) => tracing::warn!("renewing the Lease failed: no answer"),
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                let holder = "nobody: the API server does not answer".to_owned();
                return Err(Error::Deposed { lease: self.name.clone(), holder });
            }
        }
        // If this fails, the next operator must wait. There is no other effect.
        let _ = timeout(ANSWER_TIMEOUT, self.write("")).await;
        Ok(())
    }

    /// Writes `holder` if this process holds the Lease. Otherwise returns the holder.
    async fn write(&self, holder: &str) -> Result<Option<String>, kube::Error> {
        let mut lease = self.api.get(&self.name).await?;
        let spec = lease.spec.clone().unwrap_or_default();
        match spec.holder_identity.clone() {
            Some(found) if found == self.identity => {}
            found => return Ok(Some(found.unwrap_or_default())),
        }
        lease.spec = Some(self.spec(&spec, holder));
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(None)
    }

    fn spec(&self, before: &LeaseSpec, holder: &str) -> LeaseSpec {
        let now = i64::try_from(self.clock.wall_ms()).ok();
        let now = now.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(MicroTime);
        let is_same = before.holder_identity.as_deref() == Some(holder);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: now.clone(),
            acquire_time: if is_same { before.acquire_time.clone() } else { now },
            lease_transitions: Some(if is_same { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }
}

/// Whether this write won against concurrent writes.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
