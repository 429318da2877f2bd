//! What was applied for each cluster. It avoids that each round writes everything again, and it
//! detects objects that others have changed since.
//!
//! Nothing here is needed for correctness: an operator that has just started knows nothing. It
//! reads the owner of each object and writes all of them once.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After this time all objects are applied again.
const AGE_MAX: Duration = Duration::from_mins(5);
/// The pauses after the first rejected eviction, and at most.
const EVICTION_PAUSE_MIN: Duration = Duration::from_secs(1);
const EVICTION_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The applied objects of each cluster, by the uid of its resource.
#[derive(Default)]
pub(crate) struct Applied(Mutex<BTreeMap<String, Entry>>);

/// The kind and name of an object.
pub(crate) type ObjectName = (String, String);

/// The objects of one cluster.
struct Entry {
    /// The fingerprint of the applied objects. `None` once one of them was changed by others.
    fingerprint: Option<String>,
    since: Instant,
    versions: BTreeMap<ObjectName, Version>,
}

/// An object as it was when it was last written.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    uid: Option<String>,
    generation: Option<i64>,
    resource_version: Option<u64>,
}

/// The clusters that wait for a disruption budget, by the uid of their resource.
#[derive(Default)]
pub(crate) struct Evictions(Mutex<BTreeMap<String, Refused>>);

/// A rejected eviction.
struct Refused {
    pause: Duration,
    until: Instant,
}

// === impl Applied ===

impl Applied {
    /// Whether objects with this fingerprint were applied recently for the cluster with this uid.
    pub(crate) fn is_fresh(&self, cluster: &str, fingerprint: &str) -> bool {
        let applied = self.0.lock();
        applied.get(cluster).is_some_and(|entry| {
            entry.fingerprint.as_deref() == Some(fingerprint) && entry.since.elapsed() < AGE_MAX
        })
    }

    /// The uids of the objects that are known to belong to the cluster.
    pub(crate) fn uids(&self, cluster: &str) -> BTreeMap<ObjectName, String> {
        let applied = self.0.lock();
        let versions = applied.get(cluster).into_iter().flat_map(|entry| &entry.versions);
        versions.filter_map(|(name, version)| Some((name.clone(), version.uid.clone()?))).collect()
    }

    /// Records that the objects of the cluster have just been applied.
    pub(crate) fn note(
        &self,
        cluster: &str,
        fingerprint: String,
        versions: BTreeMap<ObjectName, Version>,
    ) {
        let entry = Entry { fingerprint: Some(fingerprint), since: Instant::now(), versions };
        self.0.lock().insert(cluster.to_owned(), entry);
    }

    /// Compares an object of the cluster with the version that was written. Returns whether others
    /// have changed it since. In that case all objects are applied again.
    pub(crate) fn has_changed(
        &self,
        cluster: &str,
        name: &ObjectName,
        now: &ObjectMeta,
        is_deleted: bool,
    ) -> bool {
        let mut applied = self.0.lock();
        let Some(entry) = applied.get_mut(cluster) else { return false };
        let Some(written) = entry.versions.get(name) else { return false };
        if !written.is_changed(now, is_deleted, name.0 == "Lease") {
            return false;
        }
        entry.versions.remove(name);
        entry.fingerprint = None;
        true
    }

    /// Discards everything about a cluster that is gone or has objects that were not written.
    pub(crate) fn forget(&self, cluster: &str) {
        self.0.lock().remove(cluster);
    }
}

// === impl Version ===

impl Version {
    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        Self {
            uid: metadata.uid.clone(),
            generation: metadata.generation,
            resource_version: version_of(metadata),
        }
    }

    /// Whether `now` is a later state than the written one. Controllers that write a status do not
    /// change the generation. The contents of a Lease are written by the masters.
    fn is_changed(&self, now: &ObjectMeta, is_deleted: bool, is_lease: bool) -> bool {
        if self.uid != now.uid {
            return !is_deleted;
        }
        if is_deleted || is_lease {
            return is_deleted;
        }
        match (self.generation, now.generation) {
            (Some(written), Some(now)) => now > written,
            // The watch may lag behind our own write.
            _ => version_of(now) > self.resource_version,
        }
    }
}

fn version_of(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_deref()?.parse().ok()
}

// === impl Evictions ===

impl Evictions {
    /// How long the cluster must wait before it asks for another eviction.
    pub(crate) fn pause(&self, cluster: &str) -> Option<Duration> {
        let refused = self.0.lock();
        let left = refused.get(cluster)?.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Records a rejected eviction. Returns how long to wait: twice as long as the last time.
    pub(crate) fn refused(&self, cluster: &str) -> Duration {
        let mut refused = self.0.lock();
        let last = refused.get(cluster).map(|refused| refused.pause);
        let pause = last.map_or(EVICTION_PAUSE_MIN, |last| (last * 2).min(EVICTION_PAUSE_MAX));
        refused.insert(cluster.to_owned(), Refused { pause, until: Instant::now() + pause });
        pause
    }

    /// Resets the pause: an eviction was accepted, or the cluster is gone.
    pub(crate) fn forget(&self, cluster: &str) {
        self.0.lock().remove(cluster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(uid: &str, generation: Option<i64>, version: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.to_owned()),
            generation,
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_foreign_change_differs_from_a_status_and_from_an_echo() {
        for (kind, now, is_deleted, is_changed) in [
            ("Service", metadata("u", None, "10"), false, false),
            ("Service", metadata("u", None, "9"), false, false),
            ("Service", metadata("u", None, "11"), false, true),
            ("Service", metadata("v", None, "11"), false, true),
            ("Service", metadata("u", None, "11"), true, true),
            // The previous version.
            ("Service", metadata("t", None, "9"), true, false),
            ("StatefulSet", metadata("u", Some(3), "99"), false, false),
            ("StatefulSet", metadata("u", Some(4), "99"), false, true),
            ("StatefulSet", metadata("u", Some(3), "99"), true, true),
            ("Lease", metadata("u", None, "99"), false, false),
            ("Lease", metadata("u", None, "99"), true, true),
        ] {
            let applied = Applied::default();
            let generation = (kind == "StatefulSet").then_some(3);
            let name = (kind.to_owned(), "demo".to_owned());
            let version = Version::of(&metadata("u", generation, "10"));
            applied.note("c", "f".to_owned(), [(name.clone(), version)].into());
            assert_eq!(applied.has_changed("c", &name, &now, is_deleted), is_changed, "{now:?}");
            assert_eq!(applied.is_fresh("c", "f"), !is_changed);
            assert!(!applied.has_changed("d", &name, &now, is_deleted), "nobody's");
        }
    }
}
