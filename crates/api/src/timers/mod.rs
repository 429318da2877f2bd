//! Derives every timer of every layer from `failover.target`.
//!
//! The target is the longest write outage of a region after one server is lost silently, with at
//! most 64 MB of WAL to replay. [`Timers::derive`] takes the target and the overrides. It returns
//! timers that satisfy every rule in [`INEQUALITIES`], or the first rule that does not hold.
//!
//! Timers grow on two scales. Timers that users notice (session, phases) grow with the target.
//! Timers that only the machines see grow with the *pace*, which is the target up to [`PACE_MAX`].
//! A cluster that may take ten minutes to recover has no reason to take minutes to elect the
//! coordinator's leader. `docs/timers.md` shows the values for 3 s.

mod hdfs;
pub mod inequality;
mod worst_case;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timespan;

pub use hdfs::{HdfsDeviation, HdfsServer, HdfsSetting};
pub use inequality::{BrokenInequality, INEQUALITIES, Inequality};
pub use worst_case::WorstCase;

/// The target of a manifest that names none.
pub const TARGET_DEFAULT: Timespan = Timespan::from_ms(3_000);
/// The shortest target. Below it, the coordinator's timers would be shorter than disks and
/// schedulers allow.
pub const TARGET_MIN: Duration = Duration::from_secs(1);
/// The longest target.
pub const TARGET_MAX: Duration = Duration::from_mins(10);
/// Timers that only machines see do not grow above this target.
pub const PACE_MAX: Duration = Duration::from_secs(30);

/// The session timeout that a stock HBase client requests. The coordinator must grant it.
const STOCK_CLIENT_SESSION: Duration = Duration::from_secs(90);
/// How far the clock of a region server may be off.
const CLOCK_BOUND: Duration = Duration::from_secs(1);
/// Kubernetes counts leases and probes in whole seconds.
const KUBERNETES_UNIT: Duration = Duration::from_secs(1);
/// The minimum number of consecutive failed probes before the kubelet restarts a container.
const LIVENESS_FAILURES_MIN: u32 = 3;

/// All timers of a cluster. Every rule of [`INEQUALITIES`] holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timers {
    /// The failover target.
    pub target: Duration,

    /// How often the coordinator's leader sends heartbeats to its followers.
    pub coordinator_heartbeat: Duration,
    /// The shortest time without a leader after which a follower starts an election. During half of
    /// [`Timers::election_timeout_max`] it trusts the leader. The rest of the time is random.
    pub election_timeout_min: Duration,
    /// The longest time without a leader after which a follower starts an election.
    pub election_timeout_max: Duration,
    /// How long one round of votes may take, including its syncs.
    pub vote_round: Duration,
    /// How long a coordinator member without a leader continues to serve its clients.
    pub isolation_grace: Duration,
    /// How often the coordinator's leader looks for expired sessions.
    pub session_sweep: Duration,

    /// A region server or master that is silent for this long is declared dead.
    pub session_timeout: Duration,
    /// The shortest session that the coordinator grants.
    pub session_timeout_min: Duration,
    /// The longest session that the coordinator grants.
    pub session_timeout_max: Duration,

    /// L: how long a region server may serve after it has sent a renewal that was committed.
    pub serving_lease: Duration,
    /// How often a region server renews the lease.
    pub lease_renewal: Duration,
    /// How far the clocks of two machines may drift apart during L.
    pub drift_margin: Duration,
    /// How far the clock of a region server may be off before it gets no regions.
    pub clock_bound: Duration,

    /// `leaseDurationSeconds` of the masters' Kubernetes Lease, in whole seconds.
    pub master_lease_duration: Duration,
    /// A master that could not renew its Lease for this long no longer relies on it.
    pub master_renew_deadline: Duration,
    /// How often masters try to acquire or renew the Lease.
    pub master_retry_period: Duration,

    /// How long a read from or a write to an HDFS DataNode may stall.
    pub hdfs_socket_timeout: Duration,
    /// A DataNode that was silent for this long is used only as a last resort.
    pub hdfs_stale_interval: Duration,

    /// How long opening a connection between two roles may take.
    pub rpc_connect_timeout: Duration,
    /// How long a request between two roles may take.
    pub rpc_timeout: Duration,
    /// How long a client waits before it retries.
    pub client_pause: Duration,
    /// How long a client keeps retrying one operation.
    pub client_operation_timeout: Duration,

    /// How often the kubelet probes a container, in whole seconds.
    pub probe_period: Duration,
    /// How many consecutive liveness probes must fail before the kubelet restarts the container.
    pub liveness_failures: u32,
    /// How long a process may take to stop after it was asked to.
    pub termination_grace: Duration,
}

/// Timers that are not to be derived. Every inequality still has to hold.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimerOverrides {
    /// How often the coordinator's leader sends a heartbeat to its followers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator_heartbeat: Option<Timespan>,
    /// The shortest time without a leader after which a follower starts an election.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election_timeout_min: Option<Timespan>,
    /// The longest time without a leader after which a follower starts an election.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election_timeout_max: Option<Timespan>,
    /// How long a coordinator member without a leader continues to serve its clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation_grace: Option<Timespan>,
    /// How long a server may be silent before it is declared dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_timeout: Option<Timespan>,
    /// The shortest session timeout that the coordinator grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_timeout_min: Option<Timespan>,
    /// The longest session timeout that the coordinator grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_timeout_max: Option<Timespan>,
    /// How long a region server may serve after a renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_lease: Option<Timespan>,
    /// How often a region server renews its lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_renewal: Option<Timespan>,
    /// How far clocks may drift apart during a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_margin: Option<Timespan>,
    /// How far the clock of a region server may be off. Beyond that, it gets no regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_bound: Option<Timespan>,
    /// Duration of the masters' Kubernetes Lease, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_lease_duration: Option<Timespan>,
    /// How long a master relies on its Lease while it cannot renew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_renew_deadline: Option<Timespan>,
    /// How often masters try to acquire or renew the Lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_retry_period: Option<Timespan>,
    /// How long a transfer to or from an HDFS DataNode may stall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdfs_socket_timeout: Option<Timespan>,
    /// How long a DataNode may be silent. After that, it is used only as a last resort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdfs_stale_interval: Option<Timespan>,
    /// How long opening a connection between two roles may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_connect_timeout: Option<Timespan>,
    /// How long a request between two roles may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_timeout: Option<Timespan>,
    /// How long a client waits before it retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_pause: Option<Timespan>,
    /// How long a client keeps retrying one operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_operation_timeout: Option<Timespan>,
    /// How often the kubelet probes a container, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_period: Option<Timespan>,
    /// How long a process may take to stop after it was asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace: Option<Timespan>,
}

// === impl Timers ===

impl Timers {
    /// Derives the timers for `target`. The values in `overrides` are used unchanged.
    ///
    /// # Errors
    /// The first of [`INEQUALITIES`] that does not hold: the target is out of range, or an override
    /// breaks a rule.
    pub fn derive(target: Timespan, overrides: &TimerOverrides) -> Result<Self, BrokenInequality> {
        let timers = Self::proportioned(target.into(), overrides);
        match INEQUALITIES.iter().find_map(|inequality| inequality.check(&timers)) {
            Some(broken) => Err(broken),
            None => Ok(timers),
        }
    }

    /// Every timer in proportion to the target, without a check of the inequalities.
    fn proportioned(target: Duration, overrides: &TimerOverrides) -> Self {
        let pace = target.min(PACE_MAX);
        let or = |chosen: Option<Timespan>, derived: Duration| {
            chosen.map_or(whole_ms(derived), Duration::from)
        };
        let session_timeout = or(overrides.session_timeout, target / 2);
        let serving_lease = or(overrides.serving_lease, pace / 4);
        let master_lease_duration = or(overrides.master_lease_duration, whole_seconds(pace / 2));
        let probe_period = or(overrides.probe_period, whole_seconds(pace / 3));
        Self {
            target,
            coordinator_heartbeat: or(overrides.coordinator_heartbeat, pace / 100),
            election_timeout_min: or(overrides.election_timeout_min, pace / 10),
            election_timeout_max: or(overrides.election_timeout_max, pace / 8),
            vote_round: whole_ms(pace / 50),
            isolation_grace: or(overrides.isolation_grace, pace / 4),
            session_sweep: whole_ms(pace / 30),
            session_timeout,
            session_timeout_min: or(overrides.session_timeout_min, pace / 6),
            session_timeout_max: or(
                overrides.session_timeout_max,
                STOCK_CLIENT_SESSION.max(session_timeout * 2),
            ),
            serving_lease,
            lease_renewal: or(overrides.lease_renewal, serving_lease / 3),
            drift_margin: or(overrides.drift_margin, serving_lease / 15),
            clock_bound: or(overrides.clock_bound, CLOCK_BOUND),
            master_lease_duration,
            master_renew_deadline: or(
                overrides.master_renew_deadline,
                master_lease_duration * 2 / 3,
            ),
            master_retry_period: or(overrides.master_retry_period, master_lease_duration / 5),
            hdfs_socket_timeout: or(overrides.hdfs_socket_timeout, pace / 3),
            hdfs_stale_interval: or(overrides.hdfs_stale_interval, session_timeout * 4 / 5),
            rpc_connect_timeout: or(overrides.rpc_connect_timeout, pace / 15),
            rpc_timeout: or(overrides.rpc_timeout, pace / 3),
            client_pause: or(overrides.client_pause, pace / 30),
            client_operation_timeout: or(overrides.client_operation_timeout, target * 4),
            probe_period,
            liveness_failures: failures_beyond(session_timeout, probe_period),
            termination_grace: or(
                overrides.termination_grace,
                Duration::from_secs(30).max(target * 2),
            ),
        }
    }

    /// The longest time that the coordinator may have no leader after it has lost one: the silence
    /// that a follower waits for, the heartbeat by which it notices, and a vote.
    pub fn leader_change(&self) -> Duration {
        self.election_timeout_max + self.coordinator_heartbeat + self.vote_round
    }

    /// The phases of the worst case that the failover target covers.
    pub fn worst_case(&self) -> WorstCase {
        WorstCase::of(self)
    }

    /// All timers that are durations, by the names of the overrides, in the order of the struct.
    pub fn named(&self) -> Vec<(&'static str, Duration)> {
        vec![
            ("coordinatorHeartbeat", self.coordinator_heartbeat),
            ("electionTimeoutMin", self.election_timeout_min),
            ("electionTimeoutMax", self.election_timeout_max),
            ("isolationGrace", self.isolation_grace),
            ("sessionTimeout", self.session_timeout),
            ("sessionTimeoutMin", self.session_timeout_min),
            ("sessionTimeoutMax", self.session_timeout_max),
            ("servingLease", self.serving_lease),
            ("leaseRenewal", self.lease_renewal),
            ("driftMargin", self.drift_margin),
            ("clockBound", self.clock_bound),
            ("masterLeaseDuration", self.master_lease_duration),
            ("masterRenewDeadline", self.master_renew_deadline),
            ("masterRetryPeriod", self.master_retry_period),
            ("hdfsSocketTimeout", self.hdfs_socket_timeout),
            ("hdfsStaleInterval", self.hdfs_stale_interval),
            ("rpcConnectTimeout", self.rpc_connect_timeout),
            ("rpcTimeout", self.rpc_timeout),
            ("clientPause", self.client_pause),
            ("clientOperationTimeout", self.client_operation_timeout),
            ("probePeriod", self.probe_period),
            ("terminationGrace", self.termination_grace),
        ]
    }
}

/// Rounded down to whole milliseconds, the resolution of manifests.
fn whole_ms(duration: Duration) -> Duration {
    Timespan::from(duration).into()
}

/// Rounded up to whole seconds, at least one.
fn whole_seconds(duration: Duration) -> Duration {
    let seconds = duration.as_millis().div_ceil(KUBERNETES_UNIT.as_millis()).max(1);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
}

/// The number of periods that last longer than `silence`.
fn failures_beyond(silence: Duration, period: Duration) -> u32 {
    let periods = silence.as_millis().checked_div(period.as_millis()).unwrap_or(0) + 1;
    u32::try_from(periods).unwrap_or(u32::MAX).max(LIVENESS_FAILURES_MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_seconds_give_a_session_and_a_lease() {
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default()).unwrap();
        assert_eq!(timers.session_timeout, Duration::from_millis(1_500));
        assert_eq!(timers.serving_lease, Duration::from_millis(750));
        assert_eq!(timers.lease_renewal, Duration::from_millis(250));
        assert!(timers.worst_case().total() <= timers.target);
    }

    #[test]
    fn what_hangs_on_an_override_follows_it() {
        let overrides = TimerOverrides {
            serving_lease: Some(Timespan::from_ms(900)),
            ..TimerOverrides::default()
        };
        let timers = Timers::derive(TARGET_DEFAULT, &overrides).unwrap();
        assert_eq!(timers.serving_lease, Duration::from_millis(900));
        assert_eq!(timers.lease_renewal, Duration::from_millis(300));
        assert_eq!(timers.drift_margin, Duration::from_millis(60));
    }

    #[test]
    fn the_document_shows_the_derived_values() {
        let document = include_str!("../../../../docs/timers.md");
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default()).unwrap();
        for (name, value) in timers.named() {
            let row = format!("| `{name}` | {} |", Timespan::from(value));
            assert!(document.contains(&row), "docs/timers.md lacks {row:?}");
        }
        for (name, length) in timers.worst_case().phases() {
            let row = format!("| {name} | {} |", Timespan::from(length));
            assert!(document.contains(&row), "docs/timers.md lacks {row:?}");
        }
        for inequality in INEQUALITIES {
            let row = format!("| `{}` | {} |", inequality.formula, inequality.why);
            assert!(document.contains(&row), "docs/timers.md lacks {row:?}");
        }
    }

    #[test]
    fn every_override_is_taken() {
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default()).unwrap();
        for (name, value) in timers.named() {
            let changed = Timespan::from(value + Duration::from_secs(1));
            let overrides: TimerOverrides =
                serde_json::from_value(serde_json::json!({ name: changed })).unwrap();
            let taken = Timers::proportioned(timers.target, &overrides).named();
            assert!(taken.contains(&(name, changed.into())), "{name} was not taken");
        }
    }

    proptest! {
        #[test]
        fn every_target_in_range_keeps_every_inequality(ms in 1_000_u64..=600_000) {
            let timers = Timers::derive(Timespan::from_ms(ms), &TimerOverrides::default());
            prop_assert!(timers.is_ok(), "{ms} ms: {}", timers.unwrap_err());
        }

        #[test]
        fn a_target_out_of_range_is_refused(
            ms in prop_oneof![0_u64..1_000, 600_001_u64..10_000_000],
        ) {
            let broken = Timers::derive(Timespan::from_ms(ms), &TimerOverrides::default());
            prop_assert!(broken.unwrap_err().to_string().contains("target"));
        }

        #[test]
        fn deriving_never_panics(target in 0..=Timespan::MS_MAX, chosen in 0..=Timespan::MS_MAX) {
            let chosen = Some(Timespan::from_ms(chosen));
            let overrides = TimerOverrides {
                session_timeout: chosen,
                serving_lease: chosen,
                election_timeout_max: chosen,
                probe_period: chosen,
                ..TimerOverrides::default()
            };
            let _ = Timers::derive(Timespan::from_ms(target), &overrides);
        }
    }
}
