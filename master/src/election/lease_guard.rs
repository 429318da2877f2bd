//! A Lease that a master must hold before it campaigns. Another task keeps the Lease.
//!
//! The two exchange what they know. The keeper reports the state of the Lease: a candidate campaigns
//! only while it holds the Lease, or while the Lease cannot be read. The candidate reports which
//! master is active, as the coordinator says: so the keeper takes over the Lease of a master that has
//! died without waiting until it lapses. Nothing here keeps data safe: the epoch does, whatever the
//! Lease says.

use tokio::sync::watch;

/// What the Lease says of this master.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum LeaseState {
    /// Another master holds it, or nothing is known yet: this master does not campaign.
    #[default]
    NotHeld,
    /// This master holds it.
    Held,
    /// It could not be read for longer than a Lease lasts: the coordinator elects alone.
    Unreachable,
    /// This master was active when another one took the Lease: it steps down.
    Lost {
        /// Who holds it.
        holder: String,
    },
}

/// Which master is active, as far as this master knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ActiveMaster {
    /// The coordinator has not said.
    #[default]
    Unknown,
    /// No master, or one that seems to have died.
    Absent {
        /// The identity under which the last active master held the Lease; empty if not known.
        last_holder: String,
    },
    /// Another master.
    Other,
    /// This master.
    This,
}

/// What a candidate waits for before it campaigns.
#[derive(Clone, Debug)]
pub struct LeaseGuard {
    identity: String,
    lease: watch::Receiver<LeaseState>,
    active: watch::Sender<ActiveMaster>,
}

/// The keeper's end of a [`LeaseGuard`].
#[derive(Debug)]
pub struct LeaseGuardHandle {
    /// Takes the state of the Lease.
    pub lease: watch::Sender<LeaseState>,
    /// Reports which master is active.
    pub active: watch::Receiver<ActiveMaster>,
}

// === impl LeaseGuard ===

impl LeaseGuard {
    /// The guard of a master that holds the Lease as `identity`. The master may not campaign until
    /// the keeper allows it. If the handle is dropped, it may.
    pub fn new(identity: String) -> (Self, LeaseGuardHandle) {
        let (lease_sender, lease) = watch::channel(LeaseState::default());
        let (active, active_receiver) = watch::channel(ActiveMaster::default());
        let handle = LeaseGuardHandle { lease: lease_sender, active: active_receiver };
        (Self { identity, lease, active }, handle)
    }

    /// A guard that always allows a campaign: there is no Lease.
    pub fn without_lease() -> Self {
        Self::new(String::new()).0
    }

    /// As whom this master holds the Lease.
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
        // An error says that the keeper is gone: then the coordinator elects alone.
        let _ = self.lease.clone().wait_for(may).await;
    }

    /// Waits until another master has taken the Lease from this active one. Gives its identity.
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
