//! What stands before the seat: a Lease that somebody else keeps for this master.
//!
//! Two facts meet here and go opposite ways. The keeper of the Lease says what the Lease says; a
//! candidate campaigns only while it holds it, or while nobody can tell. The candidate says who
//! sits, as the coordinator knows; so the keeper takes the Lease of one that is gone at once.
//! Nothing here keeps data safe: the epoch does, whatever the Lease says.

use tokio::sync::watch;

/// What the Lease says of this master.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum LeaseState {
    /// It is another's, or nothing is known yet: this master does not campaign.
    #[default]
    NotHeld,
    /// It is this master's.
    Held,
    /// Nobody has been able to tell for longer than a Lease lasts: the coordinator elects alone.
    Unreachable,
    /// This master sits, and another one has taken the Lease since: it gives up the seat.
    Lost {
        /// Who holds it.
        holder: String,
    },
}

/// Who sits, as far as this master knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Seat {
    /// The coordinator has not said.
    #[default]
    Unknown,
    /// Nobody, or one that seems to have died.
    Vacant {
        /// As whom the one held the Lease that sat there last; empty if that is not known.
        last_holder: String,
    },
    /// Another master.
    Taken,
    /// This master.
    Ours,
}

/// The candidate's end.
#[derive(Clone, Debug)]
pub struct Gate {
    identity: String,
    lease: watch::Receiver<LeaseState>,
    seat: watch::Sender<Seat>,
}

/// The end of who keeps the Lease.
#[derive(Debug)]
pub struct GateKeeper {
    /// Told what the Lease says.
    pub lease: watch::Sender<LeaseState>,
    /// Tells who sits.
    pub seat: watch::Receiver<Seat>,
}

// === impl Gate ===

impl Gate {
    /// A gate for the master that holds the Lease as `identity`. It is closed until the keeper
    /// opens it; without a keeper it is open.
    pub fn new(identity: String) -> (Self, GateKeeper) {
        let (lease, lease_told) = watch::channel(LeaseState::default());
        let (seat, seat_told) = watch::channel(Seat::default());
        (Self { identity, lease: lease_told, seat }, GateKeeper { lease, seat: seat_told })
    }

    /// A gate that is always open: there is no Lease.
    pub fn open() -> Self {
        Self::new(String::new()).0
    }

    /// As whom this master holds the Lease.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Tells the keeper who sits.
    pub fn report(&self, seat: Seat) {
        self.seat.send_if_modified(|known| {
            let is_new = *known != seat;
            *known = seat;
            is_new
        });
    }

    /// Waits until this master may campaign. Cancel safe.
    pub(crate) async fn opened(&self) {
        let may = |lease: &LeaseState| matches!(lease, LeaseState::Held | LeaseState::Unreachable);
        // An error says that the keeper is gone: then the coordinator elects alone.
        let _ = self.lease.clone().wait_for(may).await;
    }

    /// Waits until another master has taken the Lease from this one, which sits. Gives which.
    pub(crate) async fn lost(&self) -> String {
        let mut lease = self.lease.clone();
        let is_lost = |lease: &LeaseState| matches!(lease, LeaseState::Lost { .. });
        let holder = match lease.wait_for(is_lost).await.as_deref() {
            Ok(LeaseState::Lost { holder }) => Some(holder.clone()),
            _ => None,
        };
        match holder {
            Some(holder) => holder,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_gate_opens_with_the_lease_and_without_an_answer() {
        let (gate, keeper) = Gate::new("m".to_owned());
        assert_eq!(gate.opened().now_or_never(), None);
        keeper.lease.send_replace(LeaseState::Held);
        gate.opened().await;
        keeper.lease.send_replace(LeaseState::NotHeld);
        assert_eq!(gate.opened().now_or_never(), None);
        keeper.lease.send_replace(LeaseState::Unreachable);
        gate.opened().await;
    }

    #[tokio::test]
    async fn without_a_keeper_the_gate_is_open_and_nothing_is_lost() {
        let gate = Gate::open();
        gate.report(Seat::Ours);
        gate.opened().await;
        assert_eq!(gate.lost().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_lost_lease_names_its_holder() {
        let (gate, keeper) = Gate::new("m".to_owned());
        assert_eq!(gate.lost().now_or_never(), None);
        keeper.lease.send_replace(LeaseState::Lost { holder: "n".to_owned() });
        assert_eq!(gate.lost().await, "n");
    }
}
