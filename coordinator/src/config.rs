//! The configuration of a member.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::Error;

/// The configuration of one member.
#[derive(Debug)]
pub struct Config {
    /// The cluster that the member belongs to. Its data folder and its peers must name the same
    /// cluster.
    pub cluster: String,
    /// The id of this member, one of `members`.
    pub member_id: u64,
    /// All members, by id: 1, 3 or 5 of them.
    pub members: BTreeMap<u64, Member>,
    /// The address to listen on for the other members. Port 0 picks a free port.
    pub peer_listen: SocketAddr,
    /// The address to listen on for clients. Port 0 picks a free port.
    pub client_listen: SocketAddr,
    /// The folder of the log and the snapshots, within the file system that is passed to `run`.
    pub data: PathBuf,
    /// Intervals and timeouts.
    pub timers: CoordinatorTimers,
    /// Limits on data, clients and memory.
    pub limits: Limits,
    /// Receives the bound addresses once the member listens on both.
    pub ready: Option<oneshot::Sender<BoundAddresses>>,
}

/// The addresses of a member, as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// For the other members.
    pub peer_address: String,
    /// For clients.
    pub client_address: String,
}

/// The addresses that a member listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundAddresses {
    /// For the other members.
    pub peer: SocketAddr,
    /// For clients.
    pub client: SocketAddr,
}

/// Intervals and timeouts. The defaults are for a failover target of three seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoordinatorTimers {
    /// The time between two heartbeats of the leader. Default: 50 ms.
    pub heartbeat_interval: Duration,
    /// Shortest silence of the leader before a follower stands for election. Default: 320 ms.
    pub election_timeout_min: Duration,
    /// Longest silence of the leader before a follower stands for election. Default: 480 ms.
    pub election_timeout_max: Duration,
    /// The shortest session timeout that a client gets. Default: 500 ms.
    pub session_timeout_min: Duration,
    /// The longest session timeout that a client gets. Default: 40 s.
    pub session_timeout_max: Duration,
    /// How long a member without contact to a leader keeps serving its clients. It must be longer
    /// than a change of leader takes, or each change disconnects all clients. Default: 1.2 s.
    pub isolation_grace: Duration,
    /// How long a client may take to send its first message, to finish a request that it has begun,
    /// and to accept a reply. Default: 10 s.
    pub client_io_timeout: Duration,
}

/// Limits on data, clients and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A snapshot is made after this many entries. Default: 10,000.
    pub snapshot_entries: u64,
    /// How many entries that are already in the snapshot stay in the log, for followers that lag
    /// slightly. Default: 2,000.
    pub snapshot_entries_kept: u64,
    /// The longest frame that a client may send (`jute.maxbuffer`). Default: 1 MiB.
    pub frame_bytes_max: usize,
    /// How many clients may be connected. Default: 10,000.
    pub connections_max: usize,
    /// How many sessions may exist, including those of disconnected clients. Default: 100,000.
    pub sessions_max: usize,
    /// How many bytes may be queued for all clients together. Default: 256 MiB.
    pub queued_bytes_max: usize,
    /// How many bytes the long frames (above 64 KiB) of all clients may take while they are being
    /// received. Default: 128 MiB.
    pub incoming_bytes_max: usize,
    /// How many bytes the watches of all clients may take. Default: 512 MiB.
    pub watch_bytes_max: usize,
}

/// The highest member id. A member puts its id into the top byte of the sessions that it opens,
/// where it must not collide with the marks that ZooKeeper sets.
const MEMBER_ID_MAX: u64 = 100;

// === impl CoordinatorTimers ===

impl Default for CoordinatorTimers {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(320),
            election_timeout_max: Duration::from_millis(480),
            session_timeout_min: Duration::from_millis(500),
            session_timeout_max: Duration::from_secs(40),
            isolation_grace: Duration::from_millis(1200),
            client_io_timeout: Duration::from_secs(10),
        }
    }
}

impl CoordinatorTimers {
    /// How often a member reports to the leader which sessions are alive.
    pub(crate) fn touch_interval(&self) -> Duration {
        (self.session_timeout_min / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// How long a request to another member may take: as long as it takes to detect by other means
    /// that the member is gone.
    pub(crate) fn peer_request_timeout(&self) -> Duration {
        self.election_timeout_max
    }

    /// How long a leader's lease lasts after a majority last heard from it. A follower stands for
    /// election after the lease and a random wait, which together are the election timeout.
    pub(crate) fn leader_lease(&self) -> Duration {
        self.election_timeout_max / 2
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            snapshot_entries: 10_000,
            snapshot_entries_kept: 2_000,
            frame_bytes_max: basalt_zk::proto::frame::FRAME_BYTES_MAX,
            connections_max: 10_000,
            sessions_max: 100_000,
            queued_bytes_max: 256 << 20,
            incoming_bytes_max: 128 << 20,
            watch_bytes_max: 512 << 20,
        }
    }
}

// === impl Config ===

impl Config {
    /// Checks that the configuration is valid.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |problem: String| Err(Error::Config { problem });
        if !matches!(self.members.len(), 1 | 3 | 5) {
            return wrong(format!("{} members: a coordinator has 1, 3 or 5", self.members.len()));
        }
        if !self.members.contains_key(&self.member_id) {
            return wrong(format!(
                "member {} is not among the members {:?}",
                self.member_id,
                self.members.keys()
            ));
        }
        if let Some(member) =
            self.members.keys().find(|member| !(1..=MEMBER_ID_MAX).contains(member))
        {
            return wrong(format!("member id {member}: it must be 1 to {MEMBER_ID_MAX}"));
        }
        let timers = &self.timers;
        if timers.election_timeout_min >= timers.election_timeout_max {
            return wrong(format!(
                "election_timeout_min {:?} must be below election_timeout_max {:?}",
                timers.election_timeout_min, timers.election_timeout_max
            ));
        }
        let shortest_wait = timers.election_timeout_min.saturating_sub(timers.leader_lease());
        if timers.heartbeat_interval.is_zero() || timers.heartbeat_interval >= shortest_wait {
            return wrong(format!(
                "heartbeat_interval {:?} must be above 0 and below election_timeout_min - \
                 election_timeout_max / 2, which is {shortest_wait:?}",
                timers.heartbeat_interval
            ));
        }
        if timers.session_timeout_min > timers.session_timeout_max {
            return wrong(format!(
                "session_timeout_min {:?} must not be above session_timeout_max {:?}",
                timers.session_timeout_min, timers.session_timeout_max
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(members: u64) -> Config {
        let member = Member {
            peer_address: "localhost:1".to_owned(),
            client_address: "localhost:2".to_owned(),
        };
        Config {
            cluster: "test".to_owned(),
            member_id: 1,
            members: (1..=members).map(|id| (id, member.clone())).collect(),
            peer_listen: "127.0.0.1:0".parse().unwrap(),
            client_listen: "127.0.0.1:0".parse().unwrap(),
            data: "/data".into(),
            timers: CoordinatorTimers::default(),
            limits: Limits::default(),
            ready: None,
        }
    }

    #[test]
    fn the_defaults_pass() {
        for members in [1, 3, 5] {
            config(members).check().unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = config(2).check().unwrap_err().to_string();
        assert!(error.contains("1, 3 or 5"), "{error}");
        let mut slow = config(3);
        slow.timers.heartbeat_interval = Duration::from_millis(100);
        let error = slow.check().unwrap_err().to_string();
        assert!(error.contains("80ms"), "{error}");
    }
}
