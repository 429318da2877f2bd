//! Masters with a lease guard, whose keeper is the test.

use std::time::Duration;

use basalt_master::{ActiveMaster, LeaseGuard, LeaseGuardHandle, LeaseState};

use super::{Cluster, PATIENCE, until};

/// Long enough for a standby master to become active if it may.
const CALM: Duration = Duration::from_millis(500);

fn guard(identity: &str, lease: LeaseState) -> (LeaseGuard, LeaseGuardHandle) {
    let (guard, keeper) = LeaseGuard::new(identity.to_owned());
    keeper.lease.send_replace(lease);
    (guard, keeper)
}

/// A cluster of two masters: the first holds the Lease and is active, the second stands by.
async fn two_masters() -> (Cluster, LeaseGuardHandle, LeaseGuardHandle) {
    let (first, first_keeper) = guard("first", LeaseState::Held);
    let mut cluster = Cluster::start_behind([first].into_iter(), 0).await;
    leads(&first_keeper, ActiveMaster::This).await;
    let (second, second_keeper) = guard("second", LeaseState::NotHeld);
    cluster.add_master(2_001, second);
    leads(&second_keeper, ActiveMaster::Other).await;
    (cluster, first_keeper, second_keeper)
}

async fn leads(keeper: &LeaseGuardHandle, active: ActiveMaster) {
    let mut known = keeper.active.clone();
    let waited = tokio::time::timeout(PATIENCE, known.wait_for(|known| *known == active)).await;
    assert!(waited.is_ok_and(|seen| seen.is_ok()), "it says {:?}", keeper.active.borrow());
}

async fn is_active_with(cluster: &Cluster, epoch: u64, holder: &str) {
    until("the other master is active", async || {
        let active = cluster.active();
        active.is_some_and(|active| active.epoch == epoch && active.lease_holder == holder)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_the_seat_of_a_dead_master_only_with_the_lease() {
    let (mut cluster, _first, second) = two_masters().await;
    let before = cluster.active().unwrap();
    cluster.masters[0].kill();
    // The keeper learns whose Lease it may take over without waiting.
    leads(&second, ActiveMaster::Absent { last_holder: "first".to_owned() }).await;
    tokio::time::sleep(CALM).await;
    assert_eq!(cluster.active().map(|active| active.epoch), Some(before.epoch));
    second.lease.send_replace(LeaseState::Held);
    leads(&second, ActiveMaster::This).await;
    is_active_with(&cluster, before.epoch + 1, "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_lease_cannot_be_read_the_coordinator_elects_alone() {
    let (mut cluster, first, second) = two_masters().await;
    let before = cluster.active().unwrap();
    // The active master continues.
    first.lease.send_replace(LeaseState::Unreachable);
    second.lease.send_replace(LeaseState::Unreachable);
    tokio::time::sleep(CALM).await;
    assert_eq!(cluster.active().map(|active| active.epoch), Some(before.epoch));
    cluster.masters[0].kill();
    is_active_with(&cluster, before.epoch + 1, "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_whose_lease_was_taken_gives_up_the_seat() {
    let (cluster, first, second) = two_masters().await;
    let before = cluster.active().unwrap();
    first.lease.send_replace(LeaseState::NotHeld);
    tokio::time::sleep(CALM).await;
    assert_eq!(cluster.active().map(|active| active.epoch), Some(before.epoch));
    second.lease.send_replace(LeaseState::Held);
    first.lease.send_replace(LeaseState::Lost { holder: "second".to_owned() });
    is_active_with(&cluster, before.epoch + 1, "second").await;
    until("its process is over", async || first.lease.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_seat_waits_for_the_one_who_gets_the_lease() {
    let (first, first_keeper) = guard("first", LeaseState::NotHeld);
    let (second, second_keeper) = guard("second", LeaseState::NotHeld);
    let opener = async {
        leads(&first_keeper, ActiveMaster::Absent { last_holder: String::new() }).await;
        leads(&second_keeper, ActiveMaster::Absent { last_holder: String::new() }).await;
        second_keeper.lease.send_replace(LeaseState::Held);
        // The candidate that may not campaign learns that another one was faster.
        leads(&first_keeper, ActiveMaster::Other).await;
    };
    let start = Cluster::start_behind([first, second].into_iter(), 0);
    let (cluster, ()) = tokio::join!(start, opener);
    is_active_with(&cluster, 1, "second").await;
}
