//! Requests check the lease while renewals extend it and time passes.

use std::sync::Arc;

use basalt_loom::{block_on, check, thread};

use super::end::LeaseEnd;
use super::sync::{AtomicU64, Ordering};

/// A thread in which the answer to a renewal arrives.
fn renew(end: &Arc<LeaseEnd>, at_ns: u64) -> thread::JoinHandle<()> {
    let end = Arc::clone(end);
    thread::spawn(move || end.put_off(at_ns))
}

#[test]
fn the_latest_renewal_counts_in_whatever_order_the_answers_come() {
    check(|| {
        let end = Arc::new(LeaseEnd::new());
        let renewals = [renew(&end, 20), renew(&end, 10)];
        let ran = end.is_after(15);
        assert!(!end.is_after(20));
        assert!(end.is_after(15) || !ran, "an older renewal took time away");
        renewals.into_iter().for_each(|renewal| renewal.join().unwrap());
        assert!(end.is_after(19) && !end.is_after(20));
    });
}

#[test]
fn whoever_waits_for_a_renewal_learns_of_it() {
    check(|| {
        let end = Arc::new(LeaseEnd::new());
        let renewals = [renew(&end, 10), renew(&end, 20)];
        // If the wake-up is lost, nothing else wakes it: loom reports a deadlock.
        block_on(end.until(|| end.is_after(15)));
        assert!(end.is_after(15));
        renewals.into_iter().for_each(|renewal| renewal.join().unwrap());
    });
}

#[test]
fn no_request_that_began_after_the_next_owner_acknowledged_sees_the_lease_run() {
    check(|| {
        let end = Arc::new(LeaseEnd::new());
        let clock = Arc::new(AtomicU64::new(5));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let renewals = [renew(&end, 10), renew(&end, 20)];
        // The next owner waits until the lease of the last committed renewal has ended.
        let next_owner = thread::spawn({
            let (clock, acknowledged) = (Arc::clone(&clock), Arc::clone(&acknowledged));
            move || {
                clock.store(20, Ordering::Release);
                acknowledged.store(1, Ordering::Release);
            }
        });
        let is_late = acknowledged.load(Ordering::Acquire) == 1;
        let runs = end.is_after(clock.load(Ordering::Acquire));
        assert!(!(is_late && runs));
        next_owner.join().unwrap();
        renewals.into_iter().for_each(|renewal| renewal.join().unwrap());
    });
}
