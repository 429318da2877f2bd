//! Masters behind a gate, of which the test is the keeper.

use std::time::Duration;

use basalt_master::{Gate, GateKeeper, LeaseState, Seat};

use super::{Cluster, PATIENCE, until};

/// Long enough for a standby to take a seat that it may take.
const CALM: Duration = Duration::from_millis(500);

fn gate(identity: &str, lease: LeaseState) -> (Gate, GateKeeper) {
    let (gate, keeper) = Gate::new(identity.to_owned());
    keeper.lease.send_replace(lease);
    (gate, keeper)
}

/// A cluster of two masters: the first holds the Lease and sits, the second stands by.
async fn two_masters() -> (Cluster, GateKeeper, GateKeeper) {
    let (first, first_keeper) = gate("first", LeaseState::Held);
    let mut cluster = Cluster::start_behind([first].into_iter(), 0).await;
    sits(&first_keeper, Seat::Ours).await;
    let (second, second_keeper) = gate("second", LeaseState::NotHeld);
    cluster.add_master(2_001, second);
    sits(&second_keeper, Seat::Taken).await;
    (cluster, first_keeper, second_keeper)
}

async fn sits(keeper: &GateKeeper, seat: Seat) {
    let mut told = keeper.seat.clone();
    let is_told = tokio::time::timeout(PATIENCE, told.wait_for(|known| *known == seat)).await;
    assert!(is_told.is_ok_and(|told| told.is_ok()), "it says {:?}", keeper.seat.borrow());
}

async fn in_charge(cluster: &Cluster, epoch: u64, holder: &str) {
    until("the other master is in charge", async || {
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
    // The keeper learns whose Lease it may take without waiting.
    sits(&second, Seat::Vacant { last_holder: "first".to_owned() }).await;
    tokio::time::sleep(CALM).await;
    assert_eq!(cluster.active().map(|active| active.epoch), Some(before.epoch));
    second.lease.send_replace(LeaseState::Held);
    sits(&second, Seat::Ours).await;
    in_charge(&cluster, before.epoch + 1, "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_can_tell_whose_the_lease_is_the_coordinator_elects_alone() {
    let (mut cluster, first, second) = two_masters().await;
    let before = cluster.active().unwrap();
    // Who sits goes on.
    first.lease.send_replace(LeaseState::Unreachable);
    second.lease.send_replace(LeaseState::Unreachable);
    tokio::time::sleep(CALM).await;
    assert_eq!(cluster.active().map(|active| active.epoch), Some(before.epoch));
    cluster.masters[0].kill();
    in_charge(&cluster, before.epoch + 1, "second").await;
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
    in_charge(&cluster, before.epoch + 1, "second").await;
    until("its process is over", async || first.lease.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_seat_waits_for_the_one_who_gets_the_lease() {
    let (first, first_keeper) = gate("first", LeaseState::NotHeld);
    let (second, second_keeper) = gate("second", LeaseState::NotHeld);
    let opener = async {
        sits(&first_keeper, Seat::Vacant { last_holder: String::new() }).await;
        sits(&second_keeper, Seat::Vacant { last_holder: String::new() }).await;
        second_keeper.lease.send_replace(LeaseState::Held);
        // One that may not campaign hears that somebody else was faster.
        sits(&first_keeper, Seat::Taken).await;
    };
    let start = Cluster::start_behind([first, second].into_iter(), 0);
    let (cluster, ()) = tokio::join!(start, opener);
    in_charge(&cluster, 1, "second").await;
}
