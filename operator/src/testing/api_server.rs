//! The objects, and the operations on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use md5::{Digest, Md5};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::faults::{Faults, Kill, Rejection, Request, Stale};
use super::{apply, http};

/// The start of the tests' clock, in seconds since 1970.
const EPOCH_S: i64 = 1_760_000_000;

/// Identifies an object. No two kinds that the operator uses have the same plural.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) plural: String,
    /// Empty for objects without a namespace, and for requests that mean all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A rejection: the HTTP code and the message.
pub(super) type Refusal = (u16, String);

/// The API server.
#[derive(Clone)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    born: Instant,
}

/// The whole state of the API server.
#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<Key, Value>,
    /// The last configuration that each field manager applied, by object, manager and subresource.
    applied: BTreeMap<(Key, String, bool), Value>,
    /// Every change: version, type, key, object.
    pub(super) log: Vec<(u64, &'static str, Key, Value)>,
    pub(super) version: u64,
    uids: u64,
    pub(super) faults: Faults,
    pub(super) requests: Vec<Request>,
    pub(super) writes: usize,
    /// Kinds whose CRDs do not exist yet.
    pub(super) missing_kinds: Vec<&'static str>,
    pub(super) now: String,
}

// === impl ApiServer ===

impl ApiServer {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            born: Instant::now(),
        }
    }

    /// A client of this server.
    pub(crate) fn client(&self) -> kube::Client {
        http::client(self.clone())
    }

    /// The time since the server was created.
    pub(crate) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        let epoch_ms = u64::try_from(EPOCH_S).unwrap() * 1_000;
        epoch_ms + u64::try_from(self.age().as_millis()).unwrap()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let now = i64::try_from(self.wall_ms()).unwrap();
        state.now = Timestamp::from_second(now / 1_000).unwrap().to_string();
        state
    }

    /// Wakes all watches.
    pub(super) fn notify(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    // ---- For tests ------------------------------------------------------------------------------

    /// A write by another client: creates the object, or merges it over the existing one.
    pub(crate) fn write(&self, plural: &str, object: Value) {
        let key = Key::of(plural, &object);
        let mut state = self.lock();
        match state.objects.contains_key(&key) {
            true => drop(state.update(&key, |found| {
                apply::merge_patch(found, &object);
                Ok(())
            })),
            false => {
                let mut created = Value::Null;
                apply::merge_patch(&mut created, &object);
                drop(state.create(&key, created));
            }
        }
        drop(state);
        self.notify();
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.lock().objects.get(&Key::new(plural, namespace, name)).cloned()
    }

    pub(crate) fn list(&self, plural: &str) -> Vec<Value> {
        let state = self.lock();
        let of_kind = state.objects.iter().filter(|(key, _)| key.plural == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let key = Key::new(plural, namespace, name);
        let _gone = self.lock().delete(&key, &json!({}));
        self.notify();
    }

    pub(crate) fn reject(&self, rejection: Rejection) {
        self.lock().faults.rejections.push(rejection);
    }

    pub(crate) fn kill_at(&self, kill: Kill) {
        let mut state = self.lock();
        state.writes = 0;
        state.faults.kill = Some(kill);
    }

    /// From now on lists of `plurals` show the current state, and watches show nothing, until
    /// [`Self::recover`].
    pub(crate) fn go_stale(&self, plurals: &[&'static str]) {
        let mut state = self.lock();
        let objects =
            state.objects.iter().filter(|(key, _)| plurals.contains(&key.plural.as_str()));
        let objects = objects.map(|(key, object)| (key.clone(), object.clone())).collect();
        state.faults.stale =
            Some(Stale { version: state.version, plurals: plurals.to_vec(), objects });
        state.faults.are_watches_frozen = true;
    }

    pub(crate) fn freeze_watches(&self) {
        self.lock().faults.are_watches_frozen = true;
    }

    pub(crate) fn recover(&self) {
        let mut state = self.lock();
        state.faults.stale = None;
        state.faults.are_watches_frozen = false;
        drop(state);
        self.notify();
    }

    pub(crate) fn set_missing_kinds(&self, plurals: &[&'static str]) {
        self.lock().missing_kinds = plurals.to_vec();
    }

    /// The number of requested writes since the last kill was set up.
    pub(crate) fn writes(&self) -> usize {
        self.lock().writes
    }

    /// Returns the requests since the last call, and removes them.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().requests)
    }
}

// === impl Key ===

impl Key {
    pub(crate) fn new(plural: &str, namespace: &str, name: &str) -> Self {
        Self { plural: plural.into(), namespace: namespace.into(), name: name.into() }
    }

    pub(super) fn of(plural: &str, object: &Value) -> Self {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        Self::new(plural, text("namespace"), text("name"))
    }

    fn has_generation(&self) -> bool {
        let with = ["basaltclusters", "basalttables", "statefulsets", "poddisruptionbudgets"];
        with.contains(&self.plural.as_str()) || self.plural == "networkpolicies"
    }
}

// === impl State ===

impl State {
    fn note(&mut self, kind: &'static str, key: &Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        match kind {
            "DELETED" => drop(self.objects.remove(key)),
            _ => drop(self.objects.insert(key.clone(), object.clone())),
        }
        if kind == "DELETED" {
            self.applied.retain(|(known, ..), _| known != key);
        }
        self.log.push((self.version, kind, key.clone(), object.clone()));
        object
    }

    pub(super) fn create(&mut self, key: &Key, mut object: Value) -> Result<Value, Refusal> {
        if self.objects.contains_key(key) {
            return Err((409, format!("{} {:?} already exists", key.plural, key.name)));
        }
        self.uids += 1;
        let now = self.now.clone();
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("uid-{}", self.uids));
        metadata["creationTimestamp"] = json!(now);
        if key.has_generation() {
            metadata["generation"] = json!(1);
        }
        if key.plural == "services" && object["spec"]["clusterIP"].is_null() {
            // The same name gets the same address in every run.
            let digest = Md5::digest(&key.name);
            let ip = format!("10.{}.{}.{}", 96 + digest[0] % 16, digest[1], digest[2]);
            object["spec"]["clusterIP"] = json!(ip);
        }
        Ok(self.note("ADDED", key, object))
    }

    /// Changes an object. An object that is being deleted and has no finalizer left is removed.
    pub(super) fn update(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut Value) -> Result<(), Refusal>,
    ) -> Result<Value, Refusal> {
        let before = self.objects.get(key).ok_or_else(|| not_found(key))?.clone();
        let mut after = before.clone();
        change(&mut after)?;
        for name in ["uid", "creationTimestamp", "name", "namespace"] {
            if after["metadata"][name] != before["metadata"][name] {
                return Err((409, format!("metadata.{name} differs: it is immutable")));
            }
        }
        if after == before {
            return Ok(before);
        }
        let was_marked = before["metadata"]["deletionTimestamp"].is_string();
        let is_marked = after["metadata"]["deletionTimestamp"].is_string();
        if key.has_generation() && (after["spec"] != before["spec"] || was_marked != is_marked) {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            after["metadata"]["generation"] = json!(generation);
        }
        let finalizers = after["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        let is_gone = is_marked && finalizers == 0 && key.plural != "pods";
        Ok(self.note(if is_gone { "DELETED" } else { "MODIFIED" }, key, after))
    }

    pub(super) fn apply(
        &mut self,
        key: &Key,
        manager: &str,
        is_status: bool,
        force: bool,
        config: &Value,
    ) -> Result<Value, Refusal> {
        let mut config = config.clone();
        if let Some(uid) = config["metadata"]["uid"].as_str()
            && self.objects.get(key).is_none_or(|found| found["metadata"]["uid"] != uid)
        {
            return Err((409, format!("uid mismatch: {} {} has not {uid}", key.plural, key.name)));
        }
        if let Some(metadata) = config["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        if is_status {
            config = json!({ "status": config["status"] });
        } else if let Some(fields) = config.as_object_mut() {
            fields.remove("status");
        }
        let place = (key.clone(), manager.to_owned(), is_status);
        let before = self.applied.get(&place).cloned();
        let others: Vec<Value> = self
            .applied
            .iter()
            .filter(|((other, ..), _)| other == key)
            .filter(|(other, _)| **other != place)
            .map(|(_, applied)| applied.clone())
            .collect();
        let others: Vec<&Value> = others.iter().collect();
        let applied = if self.objects.contains_key(key) {
            self.update(key, |object| {
                apply::apply(object, before.as_ref(), &config, &others, force)
                    .map_err(|path| (409, format!("conflict: {path} is another manager's")))
            })?
        } else if is_status {
            return Err(not_found(key));
        } else {
            self.create(key, config.clone())?
        };
        self.applied.insert(place, config);
        Ok(applied)
    }

    pub(super) fn delete(&mut self, key: &Key, options: &Value) -> Result<Value, Refusal> {
        let object = self.objects.get(key).ok_or_else(|| not_found(key))?.clone();
        for name in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][name];
            if wanted.is_string() && *wanted != object["metadata"][name] {
                return Err((409, format!("the {name} in the precondition is {wanted}")));
            }
        }
        let has_finalizers =
            object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        let is_graceful = key.plural == "pods" && options["gracePeriodSeconds"] != json!(0);
        if !has_finalizers && !is_graceful {
            return Ok(self.note("DELETED", key, object));
        }
        let now = self.now.clone();
        self.update(key, |object| {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = json!(now);
            }
            Ok(())
        })
    }

    /// Like the Eviction API: at most one budget may apply to a pod. A budget does not protect a
    /// pod that is not ready.
    pub(super) fn evict(&mut self, key: &Key, eviction: &Value) -> Result<Value, Refusal> {
        let pod = self.objects.get(key).ok_or_else(|| not_found(key))?.clone();
        let budgets = self.objects.iter().filter(|(other, budget)| {
            other.plural == "poddisruptionbudgets"
                && other.namespace == key.namespace
                && super::controllers::selects(&budget["spec"]["selector"]["matchLabels"], &pod)
        });
        let budgets: Vec<Key> = budgets.map(|(key, _)| key.clone()).collect();
        if budgets.len() > 1 {
            let message = "This pod has more than one PodDisruptionBudget";
            return Err((500, message.to_owned()));
        }
        if let Some(budget) = budgets.first()
            && super::controllers::is_ready(&pod)
        {
            let allowed = self.objects[budget]["status"]["disruptionsAllowed"].as_i64();
            if allowed.unwrap_or(0) < 1 {
                let message = "Cannot evict pod as it would violate the pod's disruption budget.";
                return Err((429, message.to_owned()));
            }
            self.update(budget, |budget| {
                budget["status"]["disruptionsAllowed"] = json!(allowed.unwrap_or(0) - 1);
                Ok(())
            })?;
        }
        self.delete(key, &eviction["deleteOptions"])
    }
}

pub(super) fn not_found(key: &Key) -> Refusal {
    (404, format!("{} {:?} not found", key.plural, key.name))
}
