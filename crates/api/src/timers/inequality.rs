//! The rules between timers. Each rule states what would go wrong without it.
//!
//! A rule is data: a formula for people, and its two sides as functions. So the check, the message
//! and `docs/timers.md` cannot drift apart.

use std::fmt;
use std::time::Duration;

use super::{KUBERNETES_UNIT, TARGET_MAX, TARGET_MIN, Timers};
use crate::Timespan;

/// One rule: a relation between the left side and the right side.
#[derive(Clone, Copy, Debug)]
pub struct Inequality {
    /// The rule. It uses the names of the overrides.
    pub formula: &'static str,
    /// What goes wrong if the rule does not hold.
    pub why: &'static str,
    left: fn(&Timers) -> Duration,
    relation: Relation,
    right: fn(&Timers) -> Duration,
}

/// A rule that does not hold, with the two durations.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "violates {formula}: {} {relation} {} is false; otherwise {why}",
    Timespan::from(*.left), Timespan::from(*.right)
)]
pub struct BrokenInequality {
    /// The rule. It uses the names of the overrides.
    pub formula: &'static str,
    /// What would go wrong.
    pub why: &'static str,
    /// The duration on its left side.
    pub left: Duration,
    /// The relation that should hold between the sides.
    pub relation: Relation,
    /// The duration on its right side.
    pub right: Duration,
}

/// The relation between two sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Relation {
    /// The left side is shorter.
    Less,
    /// The left side is not longer.
    AtMost,
    /// The left side is an integer multiple of the right one.
    MultipleOf,
}

/// All rules. Those whose violation explains others come first.
pub const INEQUALITIES: &[Inequality] = &[
    TARGET_NOT_TOO_SHORT,
    TARGET_NOT_TOO_LONG,
    HEARTBEAT_IS_POSSIBLE,
    HEARTBEAT_BEFORE_ELECTION,
    ELECTION_TIMEOUTS_SPREAD,
    SESSION_IS_GRANTED,
    SESSION_IS_NOT_CUT,
    SESSION_OUTLASTS_LEADER_CHANGE,
    LEASE_ENDS_BEFORE_SESSION,
    LEASE_OUTLASTS_LEADER_CHANGE,
    LEASE_IS_RENEWED_IN_TIME,
    RENEWAL_IS_POSSIBLE,
    ORDER_FAILS_BEFORE_SESSION,
    CONNECT_BEFORE_RPC_TIMEOUT,
    ISOLATION_OUTLASTS_LEADER_CHANGE,
    ISOLATION_ENDS_BEFORE_SESSION,
    DRIFT_IS_COVERED,
    MASTER_LEASE_IN_SECONDS,
    MASTER_LETS_GO_BEFORE_LEASE_ENDS,
    MASTER_RETRIES_BEFORE_DEADLINE,
    MASTER_RETRY_IS_POSSIBLE,
    STALE_BEFORE_SESSION,
    HDFS_STALL_BEFORE_SESSION,
    CLIENT_OUTLASTS_FAILURE,
    PROBES_IN_SECONDS,
    GRACE_OUTLASTS_FAILURE,
    PHASES_WITHIN_TARGET,
];

/// The target is long enough for the coordinator's disks.
pub const TARGET_NOT_TOO_SHORT: Inequality = Inequality {
    formula: "1s <= target",
    why: "the coordinator would have to elect faster than disks sync",
    left: |_| TARGET_MIN,
    relation: Relation::AtMost,
    right: |timers| timers.target,
};

/// The target is short enough to be useful.
pub const TARGET_NOT_TOO_LONG: Inequality = Inequality {
    formula: "target <= 10m",
    why: "dead servers would go unnoticed for longer than anyone waits",
    left: |timers| timers.target,
    relation: Relation::AtMost,
    right: |_| TARGET_MAX,
};

/// The operating system's timer jitter and a disk sync fit between two heartbeats.
pub const HEARTBEAT_IS_POSSIBLE: Inequality = Inequality {
    formula: "5ms <= coordinatorHeartbeat",
    why: "the scheduler's jitter alone would delay heartbeats",
    left: |_| Duration::from_millis(5),
    relation: Relation::AtMost,
    right: |timers| timers.coordinator_heartbeat,
};

/// A single lost heartbeat does not depose a leader. During half of the maximum timeout followers
/// trust the leader. The random part comes on top.
pub const HEARTBEAT_BEFORE_ELECTION: Inequality = Inequality {
    formula: "3 * coordinatorHeartbeat + electionTimeoutMax / 2 <= electionTimeoutMin",
    why: "one or two late heartbeats would depose a living leader",
    left: |timers| timers.coordinator_heartbeat * 3 + timers.election_timeout_max / 2,
    relation: Relation::AtMost,
    right: |timers| timers.election_timeout_min,
};

/// Two followers rarely start an election at the same moment.
pub const ELECTION_TIMEOUTS_SPREAD: Inequality = Inequality {
    formula: "electionTimeoutMin + coordinatorHeartbeat < electionTimeoutMax",
    why: "followers would start elections at the same time and split the vote",
    left: |timers| timers.election_timeout_min + timers.coordinator_heartbeat,
    relation: Relation::Less,
    right: |timers| timers.election_timeout_max,
};

/// The coordinator does not lengthen the session that the roles ask for.
pub const SESSION_IS_GRANTED: Inequality = Inequality {
    formula: "sessionTimeoutMin <= sessionTimeout",
    why: "the coordinator would lengthen the servers' sessions and so delay detection",
    left: |timers| timers.session_timeout_min,
    relation: Relation::AtMost,
    right: |timers| timers.session_timeout,
};

/// The coordinator does not shorten the session that the roles ask for.
pub const SESSION_IS_NOT_CUT: Inequality = Inequality {
    formula: "sessionTimeout <= sessionTimeoutMax",
    why: "the coordinator would shorten the servers' sessions and declare living ones dead",
    left: |timers| timers.session_timeout,
    relation: Relation::AtMost,
    right: |timers| timers.session_timeout_max,
};

/// The coordinator has a new leader before any session can expire.
pub const SESSION_OUTLASTS_LEADER_CHANGE: Inequality = Inequality {
    formula: "change of the coordinator's leader + leaseRenewal < sessionTimeout",
    why: "losing the coordinator's leader could end the sessions of living servers",
    left: |timers| timers.leader_change() + timers.lease_renewal,
    relation: Relation::Less,
    right: |timers| timers.session_timeout,
};

/// A silent server has stopped serving before it is declared dead.
pub const LEASE_ENDS_BEFORE_SESSION: Inequality = Inequality {
    formula: "servingLease + driftMargin < sessionTimeout",
    why: "a server declared dead could still be serving, and recovery would wait for it",
    left: |timers| timers.serving_lease + timers.drift_margin,
    relation: Relation::Less,
    right: |timers| timers.session_timeout,
};

/// Losing the coordinator's leader interrupts no region.
pub const LEASE_OUTLASTS_LEADER_CHANGE: Inequality = Inequality {
    formula: "change of the coordinator's leader + leaseRenewal < servingLease",
    why: "losing the coordinator's leader would stop all regions for a moment",
    left: |timers| timers.leader_change() + timers.lease_renewal,
    relation: Relation::Less,
    right: |timers| timers.serving_lease,
};

/// The loss of one renewal has no effect.
pub const LEASE_IS_RENEWED_IN_TIME: Inequality = Inequality {
    formula: "2 * leaseRenewal < servingLease",
    why: "one lost renewal would stop a server",
    left: |timers| timers.lease_renewal * 2,
    relation: Relation::Less,
    right: |timers| timers.serving_lease,
};

/// Renewals are not the coordinator's main load.
pub const RENEWAL_IS_POSSIBLE: Inequality = Inequality {
    formula: "coordinatorHeartbeat <= leaseRenewal",
    why: "servers would renew faster than the coordinator replicates",
    left: |timers| timers.coordinator_heartbeat,
    relation: Relation::AtMost,
    right: |timers| timers.lease_renewal,
};

/// A change of leader does not cost any client its connection.
pub const ISOLATION_OUTLASTS_LEADER_CHANGE: Inequality = Inequality {
    formula: "change of the coordinator's leader < isolationGrace",
    why: "each change of the coordinator's leader would drop all its clients",
    left: Timers::leader_change,
    relation: Relation::Less,
    right: |timers| timers.isolation_grace,
};

/// A client of an isolated member connects to another one before its session expires.
pub const ISOLATION_ENDS_BEFORE_SESSION: Inequality = Inequality {
    formula: "isolationGrace + rpcConnectTimeout < sessionTimeout",
    why: "servers connected to a cut-off member of the coordinator would lose their sessions",
    left: |timers| timers.isolation_grace + timers.rpc_connect_timeout,
    relation: Relation::Less,
    right: |timers| timers.session_timeout,
};

/// A clock that is wrong by one percent breaks nothing.
pub const DRIFT_IS_COVERED: Inequality = Inequality {
    formula: "servingLease / 100 <= driftMargin",
    why: "a slow clock could let two servers serve one region",
    left: |timers| timers.serving_lease / 100,
    relation: Relation::AtMost,
    right: |timers| timers.drift_margin,
};

/// The Kubernetes Lease can express the duration.
pub const MASTER_LEASE_IN_SECONDS: Inequality = Inequality {
    formula: "masterLeaseDuration is a multiple of 1s",
    why: "a Kubernetes Lease counts whole seconds",
    left: |timers| timers.master_lease_duration,
    relation: Relation::MultipleOf,
    right: |_| KUBERNETES_UNIT,
};

/// A candidate does not campaign with a Lease that others may already take.
pub const MASTER_LETS_GO_BEFORE_LEASE_ENDS: Inequality = Inequality {
    formula: "masterRenewDeadline < masterLeaseDuration",
    why: "two masters would campaign at once (the epoch would stop one of them abruptly)",
    left: |timers| timers.master_renew_deadline,
    relation: Relation::Less,
    right: |timers| timers.master_lease_duration,
};

/// A failed renewal is tried again before the master gives up. The jitter is a fifth.
pub const MASTER_RETRIES_BEFORE_DEADLINE: Inequality = Inequality {
    formula: "2.4 * masterRetryPeriod < masterRenewDeadline",
    why: "one failed renewal would let the Lease of a living master lapse",
    left: |timers| timers.master_retry_period * 12 / 5,
    relation: Relation::Less,
    right: |timers| timers.master_renew_deadline,
};

/// The masters do not overload the API server.
pub const MASTER_RETRY_IS_POSSIBLE: Inequality = Inequality {
    formula: "100ms <= masterRetryPeriod",
    why: "the masters would flood the Kubernetes API server",
    left: |_| Duration::from_millis(100),
    relation: Relation::AtMost,
    right: |timers| timers.master_retry_period,
};

/// When a recovery begins, HDFS already avoids the DataNode that died with the server.
pub const STALE_BEFORE_SESSION: Inequality = Inequality {
    formula: "hdfsStaleInterval < sessionTimeout",
    why: "recovery would read from the DataNode that died with the server",
    left: |timers| timers.hdfs_stale_interval,
    relation: Relation::Less,
    right: |timers| timers.session_timeout,
};

/// A DataNode that hangs costs less than a region server that hangs.
pub const HDFS_STALL_BEFORE_SESSION: Inequality = Inequality {
    formula: "hdfsSocketTimeout < sessionTimeout",
    why: "a lost DataNode would cause a longer outage than a lost server",
    left: |timers| timers.hdfs_socket_timeout,
    relation: Relation::Less,
    right: |timers| timers.session_timeout,
};

/// A master's order to a silent server fails before the server is declared dead.
pub const ORDER_FAILS_BEFORE_SESSION: Inequality = Inequality {
    formula: "rpcTimeout < sessionTimeout",
    why: "requests to a dead server would outlast its detection and delay its recovery",
    left: |timers| timers.rpc_timeout,
    relation: Relation::Less,
    right: |timers| timers.session_timeout,
};

/// A request has time left after its connection is open.
pub const CONNECT_BEFORE_RPC_TIMEOUT: Inequality = Inequality {
    formula: "rpcConnectTimeout < rpcTimeout",
    why: "a request could time out before its connection is open",
    left: |timers| timers.rpc_connect_timeout,
    relation: Relation::Less,
    right: |timers| timers.rpc_timeout,
};

/// A client is still trying when the failure is over.
pub const CLIENT_OUTLASTS_FAILURE: Inequality = Inequality {
    formula: "target < clientOperationTimeout",
    why: "clients would give up before recovery is done",
    left: |timers| timers.target,
    relation: Relation::Less,
    right: |timers| timers.client_operation_timeout,
};

/// A Kubernetes probe can express the period.
pub const PROBES_IN_SECONDS: Inequality = Inequality {
    formula: "probePeriod is a multiple of 1s",
    why: "the kubelet counts whole seconds",
    left: |timers| timers.probe_period,
    relation: Relation::MultipleOf,
    right: |_| KUBERNETES_UNIT,
};

/// A clean stop is not cut short, which would turn it into a failure.
pub const GRACE_OUTLASTS_FAILURE: Inequality = Inequality {
    formula: "target < terminationGrace",
    why: "a clean stop would have less time than a failure may take",
    left: |timers| timers.target,
    relation: Relation::Less,
    right: |timers| timers.termination_grace,
};

/// The phases of the worst case fit into the failover target.
pub const PHASES_WITHIN_TARGET: Inequality = Inequality {
    formula: "sum of the phases <= target",
    why: "a silent loss would cause a longer outage than the target",
    left: |timers| timers.worst_case().total(),
    relation: Relation::AtMost,
    right: |timers| timers.target,
};

// === impl Inequality ===

impl Inequality {
    /// `None` if the rule holds for `timers`. Otherwise the durations that violate it.
    pub fn check(&self, timers: &Timers) -> Option<BrokenInequality> {
        let (left, right) = ((self.left)(timers), (self.right)(timers));
        let holds = match self.relation {
            Relation::Less => left < right,
            Relation::AtMost => left <= right,
            Relation::MultipleOf => {
                !left.is_zero() && left.as_millis().is_multiple_of(right.as_millis())
            }
        };
        (!holds).then_some(BrokenInequality {
            formula: self.formula,
            why: self.why,
            left,
            relation: self.relation,
            right,
        })
    }
}

// === impl Relation ===

impl fmt::Display for Relation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::MultipleOf => "is a multiple of",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timers::{TARGET_DEFAULT, TimerOverrides};

    /// Asserts that `overrides` of a 3 s target are rejected, by exactly this rule.
    #[track_caller]
    fn breaks(overrides: serde_json::Value, rule: &Inequality) {
        let overrides: TimerOverrides = serde_json::from_value(overrides).unwrap();
        let broken = Timers::derive(TARGET_DEFAULT, &overrides).unwrap_err();
        assert_eq!(broken.formula, rule.formula, "{broken}");
        assert!(broken.to_string().contains(rule.why));
    }

    #[test]
    fn each_rule_refuses_the_override_that_breaks_it() {
        use serde_json::json;
        breaks(json!({ "coordinatorHeartbeat": "4ms" }), &HEARTBEAT_IS_POSSIBLE);
        breaks(json!({ "coordinatorHeartbeat": "50ms" }), &HEARTBEAT_BEFORE_ELECTION);
        breaks(json!({ "electionTimeoutMax": "150ms" }), &ELECTION_TIMEOUTS_SPREAD);
        breaks(json!({ "sessionTimeoutMin": "2s" }), &SESSION_IS_GRANTED);
        breaks(json!({ "sessionTimeoutMax": "1s" }), &SESSION_IS_NOT_CUT);
        breaks(
            json!({ "electionTimeoutMin": "800ms", "electionTimeoutMax": "1200ms" }),
            &SESSION_OUTLASTS_LEADER_CHANGE,
        );
        breaks(json!({ "servingLease": "1450ms" }), &LEASE_ENDS_BEFORE_SESSION);
        breaks(json!({ "servingLease": "600ms" }), &LEASE_OUTLASTS_LEADER_CHANGE);
        breaks(json!({ "servingLease": "1s", "leaseRenewal": "500ms" }), &LEASE_IS_RENEWED_IN_TIME);
        breaks(json!({ "leaseRenewal": "20ms" }), &RENEWAL_IS_POSSIBLE);
        breaks(json!({ "isolationGrace": "400ms" }), &ISOLATION_OUTLASTS_LEADER_CHANGE);
        breaks(json!({ "isolationGrace": "1400ms" }), &ISOLATION_ENDS_BEFORE_SESSION);
        breaks(json!({ "driftMargin": "7ms" }), &DRIFT_IS_COVERED);
        breaks(json!({ "masterLeaseDuration": "2500ms" }), &MASTER_LEASE_IN_SECONDS);
        breaks(json!({ "masterRenewDeadline": "2s" }), &MASTER_LETS_GO_BEFORE_LEASE_ENDS);
        breaks(json!({ "masterRetryPeriod": "600ms" }), &MASTER_RETRIES_BEFORE_DEADLINE);
        breaks(json!({ "masterRetryPeriod": "50ms" }), &MASTER_RETRY_IS_POSSIBLE);
        breaks(json!({ "hdfsStaleInterval": "1500ms" }), &STALE_BEFORE_SESSION);
        breaks(json!({ "hdfsSocketTimeout": "2s" }), &HDFS_STALL_BEFORE_SESSION);
        breaks(json!({ "rpcTimeout": "2s" }), &ORDER_FAILS_BEFORE_SESSION);
        breaks(json!({ "rpcConnectTimeout": "1s" }), &CONNECT_BEFORE_RPC_TIMEOUT);
        breaks(json!({ "clientOperationTimeout": "3s" }), &CLIENT_OUTLASTS_FAILURE);
        breaks(json!({ "probePeriod": "0s" }), &PROBES_IN_SECONDS);
        breaks(json!({ "terminationGrace": "3s" }), &GRACE_OUTLASTS_FAILURE);
        breaks(json!({ "sessionTimeout": "2s" }), &PHASES_WITHIN_TARGET);
    }

    #[test]
    fn the_message_carries_the_rule_and_both_lengths() {
        let overrides: TimerOverrides =
            serde_json::from_value(serde_json::json!({ "servingLease": "1450ms" })).unwrap();
        let broken = Timers::derive(TARGET_DEFAULT, &overrides).unwrap_err();
        assert_eq!(
            broken.to_string(),
            "violates servingLease + driftMargin < sessionTimeout: 1.546s < 1.5s is false; \
             otherwise a server declared dead could still be serving, and recovery would wait \
             for it"
        );
    }
}
