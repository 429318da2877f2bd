//! A guard that lets a master campaign only with its Lease. Another task, the keeper, holds the
//! Lease.
//!
//! The candidate and the keeper exchange what they know. The keeper reports the state of the Lease.
//! A candidate campaigns only while it holds the Lease, or while the Lease cannot be read. The
//! candidate reports which master is active according to the coordinator. The keeper can therefore
//! take over the Lease of a dead master without waiting until it expires. None of this protects
//! data. The epoch does, whatever the Lease says.

use tokio::sync::watch;

/// The state of the Lease, as seen by this master.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum LeaseState {
    /// Another master holds it, or its state is not known yet. This master does not campaign.
    #[default]
    NotHeld,
    /// This master holds it.
    Held,
    /// It could not be read for longer than the duration of a Lease. The coordinator alone elects.
    Unreachable,
    /// Another master took the Lease while this one was active. This master steps down.
    Lost {
        /// The identity of the new holder.
        holder: String,
    },
}

/// Which master is active, as far as this master knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ActiveMaster {
    /// The coordinator has not answered yet.
    #[default]
    Unknown,
    /// No master is active, or the active one seems to have died.
    Absent {
        /// The identity under which the last active master held the Lease. Empty if it is not
        /// known.
        last_holder: String,
    },
    /// Another master.
    Other,
    /// This master.
    This,
}

/// A guard that a candidate waits for before it campaigns.
#[derive(Clone, Debug)]
pub struct LeaseGuard {
    identity: String,
    lease: watch::Receiver<LeaseState>,
    active: watch::Sender<ActiveMaster>,
}

/// The keeper's end of a [`LeaseGuard`].
#[derive(Debug)]
pub struct LeaseGuardHandle {
    /// Sends the state of the Lease.
    pub lease: watch::Sender<LeaseState>,
    /// Receives which master is active.
    pub active: watch::Receiver<ActiveMaster>,
}

// === impl LeaseGuard ===

impl LeaseGuard {
    /// The guard of a master that holds the Lease as `identity`. The master may not campaign until
    /// the keeper allows it. Dropping the handle allows it, too.
    pub fn new(identity: String) -> (Self, LeaseGuardHandle) {
        let (lease_sender, lease) = watch::channel(LeaseState::default());
        let (active, active_receiver) = watch::channel(ActiveMaster::default());
        let handle = LeaseGuardHandle { lease: lease_sender, active: active_receiver };
        (Self { identity, lease, active }, handle)
    }

    /// A guard that always allows a campaign, for clusters without a Lease.
    pub fn without_lease() -> Self {
        Self::new(String::new()).0
    }

    /// The identity under which this master holds the Lease.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Reports to the keeper which master is active.
    pub fn report(&self, active: ActiveMaster) {
        self.active.send_if_modified(|known| {
            let is_new = *known != active;
            *known = active;
            is_new
        });
    }

    /// Waits until this master may campaign. Cancel safe.
    pub(crate) async fn may_campaign(&self) {
        let may = |lease: &LeaseState| matches!(lease, LeaseState::Held | LeaseState::Unreachable);
        // An error means that the keeper has stopped. Then the coordinator alone elects.
        let _ = self.lease.clone().wait_for(may).await;
    }

    /// Waits until another master has taken the Lease from this active one. Returns the new
    /// holder's identity.
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
    async fn a_candidate_waits_for_the_lease_unless_it_cannot_be_read() {
        let (guard, keeper) = LeaseGuard::new("m".to_owned());
        assert_eq!(guard.may_campaign().now_or_never(), None);
        keeper.lease.send_replace(LeaseState::Held);
        guard.may_campaign().await;
        keeper.lease.send_replace(LeaseState::NotHeld);
        assert_eq!(guard.may_campaign().now_or_never(), None);
        keeper.lease.send_replace(LeaseState::Unreachable);
        guard.may_campaign().await;
    }

    #[tokio::test]
    async fn without_a_lease_nothing_is_waited_for_and_nothing_is_lost() {
        let guard = LeaseGuard::without_lease();
        guard.report(ActiveMaster::This);
        guard.may_campaign().await;
        assert_eq!(guard.lost().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_lost_lease_names_its_holder() {
        let (guard, keeper) = LeaseGuard::new("m".to_owned());
        assert_eq!(guard.lost().now_or_never(), None);
        keeper.lease.send_replace(LeaseState::Lost { holder: "n".to_owned() });
        assert_eq!(guard.lost().await, "n");
    }
}
