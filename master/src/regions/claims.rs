//! The regions that a task is working on, so that the reconciler leaves them alone.
//!
//! Claims coordinate the work of one master. They protect no data; the versions and epochs of the
//! records do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_model::EncodedRegionName;
use parking_lot::Mutex;

/// The claimed regions, each with its number of claims.
#[derive(Debug, Default)]
pub(crate) struct Claims(Arc<Mutex<BTreeMap<EncodedRegionName, usize>>>);

/// The claim of a task on the regions that it works on. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Mutex<BTreeMap<EncodedRegionName, usize>>>,
    names: Vec<EncodedRegionName>,
}

// === impl Claims ===

impl Claims {
    /// Claims `names`, even if other tasks have claimed them.
    pub(crate) fn claim(&self, names: impl IntoIterator<Item = EncodedRegionName>) -> Claim {
        let names: Vec<_> = names.into_iter().collect();
        let mut counts = self.0.lock();
        for name in &names {
            *counts.entry(*name).or_default() += 1;
        }
        drop(counts);
        Claim { claims: Arc::clone(&self.0), names }
    }

    /// All claimed regions.
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
