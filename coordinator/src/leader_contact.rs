//! Keeps this member in contact with the leader: reports which sessions are alive, and learns from
//! the answer that the leader still leads. A member that gets no such answer for too long stops
//! serving its clients, so that they connect to another member.

use std::sync::atomic::Ordering;
use std::time::Duration;

use basalt_runtime::{Random, WITNESS};
use basalt_zk::proto::SessionId;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::member::Member;
use crate::tree::{Change, SECRET_BYTES};

/// If the log is larger than this, a snapshot is made, however few entries there are.
const LOG_BYTES_MAX: usize = 256 << 20;
/// The shortest time between two such snapshots.
const SHORTEN_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps `member` in contact with the leader.
pub(crate) async fn run(member: &Member) {
    let timers = &member.config.timers;
    let mut ticks = tokio::time::interval(timers.touch_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut secret_proposed = false;
    let mut last_shortened = Instant::now();
    loop {
        ticks.tick().await;
        // Consensus may be waiting for the log. Its ticks would fill its queue meanwhile, and
        // consensus itself would then wait for ever to add to that queue. Without ticks it sends no
        // heartbeats either, so the others elect a leader.
        member.raft.runtime_config().tick(!member.log.room().is_used_up());
        if is_led(member).await {
            *member.contact.lock() = Instant::now();
        }
        let has_secret = member.replica.read(|state, _| state.secret().is_some());
        if !has_secret && !secret_proposed && member.leads() {
            secret_proposed = true;
            propose_secret(member).await;
        }
        judge(member, has_secret, timers.isolation_grace);
        if last_shortened.elapsed() > SHORTEN_INTERVAL && member.log.bytes() > LOG_BYTES_MAX {
            last_shortened = Instant::now();
            shorten_log(member).await;
        }
    }
}

/// Reports the sessions that are alive here to the leader. Returns whether it confirmed that it
/// leads.
async fn is_led(member: &Member) -> bool {
    let Some(leader) = member.leadership.borrow().leader else {
        return false;
    };
    let sessions = std::mem::take(&mut *member.touched.lock());
    let wire_sessions = sessions.iter().map(|session| session.0).collect();
    let confirmed = if leader == member.id() {
        // Consensus does not answer while it waits for space on a full disk.
        let confirming = member.raft.get_read_linearizer(ReadPolicy::LeaseRead);
        let answer = timeout(member.config.timers.isolation_grace, confirming).await;
        member.expiry.heard_of(wire_sessions);
        matches!(answer, Ok(Ok(_)))
    } else {
        member.peers.touch(leader, wire_sessions).await.is_ok()
    };
    if !confirmed {
        member.touched.lock().extend::<Vec<SessionId>>(sessions.into_iter().collect());
    }
    confirmed
}

/// Purges the entries of the last snapshot from the log, and triggers another snapshot.
async fn shorten_log(member: &Member) {
    let snapshot = member.raft.metrics().borrow_watched().snapshot;
    let trigger = member.raft.trigger();
    if let Some(snapshot) = snapshot
        && let Err(error) = trigger.purge_log(snapshot.index).await
    {
        tracing::debug!(%error, "consensus is stopping");
    }
    if let Err(error) = trigger.snapshot().await {
        tracing::debug!(%error, "consensus is stopping");
    }
}

/// Starts or stops serving clients.
fn judge(member: &Member, has_secret: bool, grace: Duration) {
    let silence = member.contact.lock().elapsed();
    let waiting = member.replica.proposals.oldest_age();
    let was_serving = *member.serving.borrow();
    // To start serving, the contact must be recent. To keep serving, it must not be too old.
    let is_fresh = silence <= if was_serving { grace } else { grace / 2 };
    let differs = member.state_differs.load(Ordering::Relaxed);
    let is_right = member.state_is_compared.load(Ordering::Relaxed) && !differs;
    let has_room = !member.log.room().is_used_up();
    let serving = has_secret && is_fresh && waiting <= grace * 4 && is_right && has_room;
    if serving {
        tracing::trace!(target: WITNESS, "serves clients");
    }
    if serving == was_serving {
        return;
    }
    if serving {
        tracing::info!("serving clients");
    } else {
        tracing::warn!(
            ?silence,
            ?waiting,
            differs,
            has_room,
            "disconnected all clients: no leader confirms that it leads, writes are not applied, \
             this member's state differs from the other members', or its disk is full"
        );
    }
    member.serving.send_replace(serving);
    if !serving {
        member.replica.disconnect_all();
    }
}

/// Proposes the key of the session passwords, which the first leader of a cluster draws.
async fn propose_secret(member: &Member) {
    let secret = draw_secret(&member.seams.random);
    let proposals = &member.replica.proposals;
    proposals.submit(Change::SetSecret(secret), Box::new(|_| ())).await;
}

fn draw_secret(random: &Random) -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    random.fill(&mut secret);
    secret
}
