//! ZooKeeper's four-letter words: queries of operators, probes and shells, without a session.

use std::fmt::{self, Write};
use std::sync::atomic::Ordering;

use openraft::async_runtime::watch::WatchReceiver;

use crate::member::Member;

/// The answer to queries for statistics while no clients are served.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";
/// Tools parse the version number at the beginning. The suffix says which server really answers.
const VERSION: &str = concat!("3.8.4-basalt-", env!("CARGO_PKG_VERSION"));

/// The answer to `word`, or `None` if the word is not supported.
pub(crate) fn answer(member: &Member, word: [u8; 4]) -> Option<String> {
    let is_serving = *member.serving.borrow();
    let mut answer = String::new();
    let written = match &word {
        b"ruok" => answer.write_str("imok"),
        b"isro" => answer.write_str(if is_serving { "rw" } else { "null" }),
        b"conf" => conf(&mut answer, member),
        b"srvr" | b"stat" | b"mntr" | b"cons" | b"wchs" | b"dump" if !is_serving => {
            answer.write_str(NOT_SERVING)
        }
        b"srvr" => srvr(&mut answer, member),
        b"stat" => stat(&mut answer, member),
        b"mntr" => mntr(&mut answer, member),
        b"cons" => cons(&mut answer, member),
        b"wchs" => wchs(&mut answer, member),
        b"dump" => dump(&mut answer, member),
        _ => return None,
    };
    debug_assert!(written.is_ok(), "a string can always be written to");
    Some(answer)
}

/// The statistics that several words report.
struct Figures {
    received: u64,
    sent: u64,
    latency_mean_ms: f64,
    latency_max_ms: f64,
    mode: &'static str,
}

// === impl Figures ===

impl Figures {
    fn of(member: &Member) -> Self {
        let connections = member.replica.connections();
        let latency = &member.latency;
        let count = latency.count.load(Ordering::Relaxed);
        let total_us = latency.total_us.load(Ordering::Relaxed);
        const US_PER_MS: f64 = 1000.0;
        Self {
            received: connections
                .iter()
                .map(|(_, outgoing)| outgoing.received.load(Ordering::Relaxed))
                .sum(),
            sent: connections
                .iter()
                .map(|(_, outgoing)| outgoing.sent.load(Ordering::Relaxed))
                .sum(),
            latency_mean_ms: total_us as f64 / count.max(1) as f64 / US_PER_MS,
            latency_max_ms: latency.max_us.load(Ordering::Relaxed) as f64 / US_PER_MS,
            mode: match (member.config.members.len(), member.leads()) {
                (1, _) => "standalone",
                (_, true) => "leader",
                (_, false) => "follower",
            },
        }
    }
}

fn srvr(answer: &mut String, member: &Member) -> fmt::Result {
    writeln!(answer, "Zookeeper version: {VERSION}")?;
    figures(answer, member)
}

fn stat(answer: &mut String, member: &Member) -> fmt::Result {
    writeln!(answer, "Zookeeper version: {VERSION}\nClients:")?;
    cons(answer, member)?;
    writeln!(answer)?;
    figures(answer, member)
}

fn figures(answer: &mut String, member: &Member) -> fmt::Result {
    let figures = Figures::of(member);
    writeln!(
        answer,
        "Latency min/avg/max: 0/{:.1}/{:.0}",
        figures.latency_mean_ms, figures.latency_max_ms
    )?;
    writeln!(answer, "Received: {}\nSent: {}", figures.received, figures.sent)?;
    let connections = member.connection_count.load(Ordering::Relaxed);
    writeln!(answer, "Connections: {connections}")?;
    writeln!(answer, "Outstanding: {}", member.replica.proposals.count())?;
    writeln!(answer, "Zxid: {}", member.replica.applied())?;
    writeln!(answer, "Mode: {}", figures.mode)?;
    let nodes = member.replica.read(|state, _| state.node_count());
    writeln!(answer, "Node count: {nodes}")
}

fn mntr(answer: &mut String, member: &Member) -> fmt::Result {
    let figures = Figures::of(member);
    let watches = member.replica.watches.lock().counts();
    let (nodes, ephemerals, sessions) = member.replica.read(|state, _| {
        let sessions = state.sessions().count();
        (state.node_count(), state.ephemeral_count(), sessions)
    });
    let leadership = *member.leadership.borrow();
    let metrics = member.raft.metrics();
    let metrics = metrics.borrow_watched();
    let committed = metrics.cluster_committed.map_or(0, |committed| committed.index);
    let log_last = metrics.last_log_index.unwrap_or_default();
    writeln!(answer, "zk_version\t{VERSION}")?;
    writeln!(answer, "zk_server_state\t{}", figures.mode)?;
    writeln!(answer, "zk_avg_latency\t{:.3}", figures.latency_mean_ms)?;
    writeln!(answer, "zk_max_latency\t{:.3}", figures.latency_max_ms)?;
    writeln!(answer, "zk_packets_received\t{}", figures.received)?;
    writeln!(answer, "zk_packets_sent\t{}", figures.sent)?;
    let connections = member.connection_count.load(Ordering::Relaxed);
    writeln!(answer, "zk_num_alive_connections\t{connections}")?;
    let outstanding = member.replica.proposals.count();
    writeln!(answer, "zk_outstanding_requests\t{outstanding}")?;
    writeln!(answer, "zk_znode_count\t{nodes}")?;
    writeln!(answer, "zk_watch_count\t{}", watches.watches)?;
    writeln!(answer, "zk_ephemerals_count\t{ephemerals}")?;
    writeln!(answer, "zk_global_sessions\t{sessions}")?;
    writeln!(answer, "basalt_raft_term\t{}", leadership.term)?;
    writeln!(answer, "basalt_raft_leader\t{}", leadership.leader.unwrap_or_default())?;
    writeln!(answer, "basalt_raft_committed\t{committed}")?;
    let purged = metrics.purged.map_or(0, |purged| purged.index);
    writeln!(answer, "basalt_raft_log_purged\t{purged}")?;
    writeln!(answer, "basalt_raft_log_last\t{log_last}")?;
    writeln!(answer, "basalt_applied\t{}", member.replica.applied().0)
}

fn conf(answer: &mut String, member: &Member) -> fmt::Result {
    let (config, timers) = (&member.config, &member.config.timers);
    writeln!(answer, "cluster={}", config.cluster)?;
    writeln!(answer, "serverId={}", config.member_id)?;
    writeln!(answer, "dataDir={}", config.data.display())?;
    writeln!(answer, "maxClientCnxns={}", config.limits.connections_max)?;
    let millis = |duration: std::time::Duration| duration.as_millis();
    writeln!(answer, "minSessionTimeout={}", millis(timers.session_timeout_min))?;
    writeln!(answer, "maxSessionTimeout={}", millis(timers.session_timeout_max))?;
    for (member, addresses) in &config.members {
        writeln!(
            answer,
            "server.{member}={}:participant;{}",
            addresses.peer_address, addresses.client_address
        )?;
    }
    Ok(())
}

fn cons(answer: &mut String, member: &Member) -> fmt::Result {
    for (session, outgoing) in member.replica.connections() {
        writeln!(
            answer,
            " /{}[1](queued_bytes={},recved={},sent={},sid={session})",
            outgoing.peer,
            outgoing.queued_bytes(),
            outgoing.received.load(Ordering::Relaxed),
            outgoing.sent.load(Ordering::Relaxed),
        )?;
    }
    Ok(())
}

fn wchs(answer: &mut String, member: &Member) -> fmt::Result {
    let counts = member.replica.watches.lock().counts();
    writeln!(
        answer,
        "{} connections watching {} paths\nTotal watches:{}",
        counts.connections, counts.paths, counts.watches
    )
}

fn dump(answer: &mut String, member: &Member) -> fmt::Result {
    member.replica.read(|state, _| {
        writeln!(answer, "Global Sessions({}):", state.sessions().count())?;
        for (id, session) in state.sessions() {
            writeln!(answer, "{id}\t{}ms", session.timeout_ms)?;
        }
        writeln!(answer, "ephemeral nodes dump:")?;
        for (id, _) in state.sessions() {
            let mut owned = state.ephemerals(id).peekable();
            if owned.peek().is_some() {
                writeln!(answer, "{id}:")?;
            }
            for path in owned {
                writeln!(answer, "\t{path}")?;
            }
        }
        Ok(())
    })
}
