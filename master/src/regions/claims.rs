//! Which regions some task is at work on, so that the reconciler leaves them alone.
//!
//! Claims order the work of one master; they protect nothing. That is done by the versions and
//! epochs of the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_model::EncodedRegionName;
use parking_lot::Mutex;

/// The claimed regions, each with the number of its claims.
#[derive(Debug, Default)]
pub(crate) struct Claims(Arc<Mutex<BTreeMap<EncodedRegionName, usize>>>);

/// Regions that a task is at work on, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Mutex<BTreeMap<EncodedRegionName, usize>>>,
    names: Vec<EncodedRegionName>,
}

// === impl Claims ===

impl Claims {
    /// Claims `names`, whoever else has.
    pub(crate) fn claim(&self, names: impl IntoIterator<Item = EncodedRegionName>) -> Claim {
        let names: Vec<_> = names.into_iter().collect();
        let mut counts = self.0.lock();
        for name in &names {
            *counts.entry(*name).or_default() += 1;
        }
        drop(counts);
        Claim { claims: Arc::clone(&self.0), names }
    }

    /// All that are claimed.
    pub(crate) fn all(&self) -> BTreeSet<EncodedRegionName> {
        self.0.lock().keys().copied().collect()
    }
}

// === impl Claim ===

impl Drop for Claim {
    fn drop(&mut self) {
        let mut counts = self.claims.lock();
        for name in &self.names {
            if let Some(count) = counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_claimed_until_the_last_claim_is_dropped() {
        let claims = Claims::default();
        let name = EncodedRegionName::from_digest([1; 16]);
        let first = claims.claim([name]);
        let second = claims.claim([name]);
        drop(first);
        assert!(claims.all().contains(&name));
        drop(second);
        assert!(claims.all().is_empty());
    }
}
