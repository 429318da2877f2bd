//! The whole operator against the API server in memory: its writes and its status.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Rejection;
use super::api_server::Key;
use super::controllers::{BROKEN, is_ready};
use super::world::{NAMESPACE, World};

/// Changes the file of every role, so that all pods must be replaced.
fn change_all(world: &World) {
    world.write_cluster("demo", json!({ "logging": { "level": "debug" } }));
}

async fn ready_cluster(world: &World) -> super::world::Operator {
    let operator = world.operator();
    world.write_cluster("demo", json!({}));
    world.until_ready("demo").await;
    operator
}

/// A pod of others, with the labels of the cluster `demo`.
fn look_alike() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "alike", "namespace": NAMESPACE, "labels": {
            "app.kubernetes.io/name": "basalt",
            "app.kubernetes.io/instance": "demo",
            "app.kubernetes.io/managed-by": "basalt-operator",
            "app.kubernetes.io/component": "regionserver",
            "controller-revision-hash": "other",
            BROKEN: "yes",
        }},
    })
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_made_and_deleted_with_all_that_it_owns() {
    let world = World::new();
    let operator = ready_cluster(&world).await;
    assert_eq!(world.cluster("demo")["status"]["readyMembers"], "8/8");
    world.server.delete("basaltclusters", NAMESPACE, "demo");
    world
        .until(30, "all is gone", |world| {
            world.server.list("statefulsets").is_empty()
                && world.server.list("services").is_empty()
                && world.server.list("pods").is_empty()
        })
        .await;
    assert!(world.server.get("persistentvolumeclaims", NAMESPACE, "demo-data").is_some());
    operator.kill().await;
}

// ---- A17: one bad object stops the operator for all clusters
// --------------------------------------

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_says_so_and_stops_no_other() {
    let world = World::new();
    world.write_claim("bad-data");
    let bad = json!({
        "storage": { "shared": { "claim": "bad-data" } },
        "masters": { "resources": { "requests": { "cpu": "lots" } } },
    });
    world.write_cluster("bad", bad);
    world.server.write("basalttables", json!({
        "apiVersion": "basalt.db/v1alpha1", "kind": "BasaltTable",
        "metadata": { "name": "worse", "namespace": NAMESPACE },
        "spec": { "clusterRef": { "name": "demo" }, "families": [{ "name": "f", "bloom": "big" }] },
    }));
    let _operator = ready_cluster(&world).await;
    world.until(10, "the bad cluster says so", |world| world.phase("bad") == "Invalid").await;
    let (status, reason, message) = world.condition("bad", "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Invalid"));
    assert!(message.contains("lots") && message.contains("500m"), "{message}");
    let table = world.server.get("basalttables", NAMESPACE, "worse").unwrap();
    let conditions = table["status"]["conditions"].to_string();
    assert!(table["status"]["phase"] == "Invalid" && conditions.contains("big"), "{table:#}");

    // The resource can be repaired, and it can be deleted.
    let good = json!({ "masters": { "resources": { "requests": { "cpu": "100m" } } } });
    world.write_cluster("bad", good);
    world.until_ready("bad").await;
    world.write_cluster(
        "bad",
        json!({ "masters": { "resources": { "requests": { "cpu": "x" } } } }),
    );
    world.until(10, "it says so again", |world| world.phase("bad") == "Invalid").await;
    assert_eq!(world.condition("bad", "Available").0, "True", "what runs of it runs on");
    world.server.delete("basaltclusters", NAMESPACE, "bad");
    world.until(10, "it goes", |world| world.cluster("bad").is_null()).await;
}

#[tokio::test(start_paused = true)]
async fn a_field_of_a_newer_version_stops_nothing() {
    let world = World::new();
    let _operator = world.operator();
    world
        .write_cluster("demo", json!({ "future": 1, "failover": { "target": "3s", "mood": "x" } }));
    world.until_ready("demo").await;
}

#[tokio::test(start_paused = true)]
async fn definitions_that_are_not_there_yet_are_waited_for() {
    let world = World::new();
    world.server.set_missing_kinds(&["basaltclusters", "basalttables"]);
    let _operator = world.operator();
    sleep(Duration::from_secs(60)).await;
    let asked = world.server.take_requests();
    assert!(asked.len() < 200, "{} requests in a minute", asked.len());
    world.server.set_missing_kinds(&[]);
    world.write_cluster("demo", json!({}));
    world.until_ready("demo").await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_deletes_or_changes_is_put_back_at_once() {
    let world = World::new();
    let _operator = ready_cluster(&world).await;
    sleep(Duration::from_secs(2)).await;
    for (plural, name) in [
        ("configmaps", "demo-regionserver"),
        ("configmaps", "demo-client"),
        ("services", "demo"),
        ("poddisruptionbudgets", "demo-coordinator"),
        ("networkpolicies", "demo-master"),
        ("serviceaccounts", "demo-master"),
        ("roles", "demo-master"),
        ("rolebindings", "demo-master"),
        ("leases", "demo-master"),
        ("statefulsets", "demo-master"),
    ] {
        world.server.delete(plural, NAMESPACE, name);
        let is_back = |world: &World| world.server.get(plural, NAMESPACE, name).is_some();
        world.until(5, &format!("{plural} {name} is back"), is_back).await;
        sleep(Duration::from_secs(5)).await;
    }
    let of_test = json!({ "data": { "regionserver.json": "{}" },
        "metadata": { "name": "demo-regionserver", "namespace": NAMESPACE } });
    world.server.write("configmaps", of_test);
    world
        .until(5, "the file is as it was", |world| {
            let found = world.server.get("configmaps", NAMESPACE, "demo-regionserver").unwrap();
            found["data"]["regionserver.json"] != "{}"
        })
        .await;
}

// ---- A18: pods are evicted, within their budgets
// --------------------------------------------------

#[tokio::test(start_paused = true)]
async fn pods_are_evicted_by_uid_and_version_and_never_deleted() {
    let world = World::new();
    let _operator = ready_cluster(&world).await;
    let before = world.pods();
    world.server.take_requests();
    change_all(&world);
    world.until_ready("demo").await;
    let after = world.pods();
    assert!(before.iter().all(|pod| !after.contains(pod)), "every pod was replaced");
    let requests = world.server.take_requests();
    let of_pods = requests.iter().filter(|request| request.path.contains("/pods/"));
    let writes: Vec<_> = of_pods.filter(|request| request.method != "GET").collect();
    for request in &writes {
        assert!(request.path.ends_with("/eviction"), "{} {}", request.method, request.path);
        let conditions = &request.body["deleteOptions"]["preconditions"];
        assert!(conditions["uid"].is_string() && conditions["resourceVersion"].is_string());
    }
    assert_eq!(writes.iter().filter(|request| request.code == 200).count(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_full_budget_is_waited_for_and_the_status_says_so() {
    let world = World::new();
    let _operator = ready_cluster(&world).await;
    world.server.reject(Rejection { method: "POST", path: "/eviction", code: 429, times: 4 });
    world.server.take_requests();
    let from = Instant::now();
    change_all(&world);
    world
        .until(5, "the status names the budget", |world| {
            world.condition("demo", "Progressing").2.contains("budget")
        })
        .await;
    world.until_ready("demo").await;
    let requests = world.server.take_requests();
    assert_eq!(requests.iter().filter(|request| request.code == 429).count(), 4);
    // The pauses of 1, 2, 4 and 8 s.
    assert!(from.elapsed() >= Duration::from_secs(15), "{:?}", from.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_members_of_the_coordinator_are_never_out_while_somebody_drains_nodes() {
    let world = World::new();
    let _operator = ready_cluster(&world).await;
    let server = world.server.clone();
    // The node drain acts immediately after the operator has read the pods, so the operator does
    // not see it.
    let drainer = tokio::spawn(async move {
        let (mut seen, mut round) = (0, 0_u64);
        loop {
            let requests =
                server.lock().requests.iter().filter(|r| r.path.ends_with("/pods")).count();
            if std::mem::replace(&mut seen, requests) != requests {
                round += 1;
                let name = format!("demo-coordinator-{}", round % 3);
                let _refused = server.lock().evict(&Key::new("pods", NAMESPACE, &name), &json!({}));
                server.notify();
            }
            sleep(Duration::from_micros(300)).await;
        }
    });
    let server = world.server.clone();
    let watcher = tokio::spawn(async move {
        loop {
            let pods = server.list("pods");
            let out = pods.iter().filter(|pod| {
                let leaving = pod["metadata"]["deletionTimestamp"].is_string();
                pod["metadata"]["labels"]["app.kubernetes.io/component"] == "coordinator"
                    && (leaving || !is_ready(pod))
            });
            let there = pods.iter().filter(|pod| {
                pod["metadata"]["labels"]["app.kubernetes.io/component"] == "coordinator"
            });
            let out = out.count() + 3 - there.count();
            assert!(out <= 1, "{out} members are out");
            sleep(Duration::from_millis(1)).await;
        }
    });
    for level in ["debug", "warn", "error"] {
        world.write_cluster("demo", json!({ "logging": { "level": level } }));
        sleep(Duration::from_secs(20)).await;
    }
    assert!(!watcher.is_finished(), "{:?}", watcher.await);
    drainer.abort();
    watcher.abort();
    world.until_ready("demo").await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_view_of_a_stateful_set_replaces_no_pod() {
    let world = World::new();
    let operator = ready_cluster(&world).await;
    let stale = world.server.lock().objects.clone();
    change_all(&world);
    world.until_ready("demo").await;
    operator.kill().await;
    let before = world.pods();
    // The sets as they were before, the pods as they are now.
    let now = std::mem::replace(&mut world.server.lock().objects, stale);
    world.server.go_stale(&["statefulsets"]);
    world.server.lock().objects = now;
    let _operator = world.operator();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.pods(), before);
    world.server.recover();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.pods(), before);
    world.until_ready("demo").await;
}

// ---- A19: nothing of others is touched
// ------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_claim_of_another_cluster_outlives_a_rejected_one() {
    let world = World::new();
    let _operator = ready_cluster(&world).await;
    sleep(Duration::from_secs(1)).await;
    world.write_cluster("second", json!({ "deletionPolicy": "Delete" }));
    world.until(10, "it is rejected", |world| world.phase("second") == "Invalid").await;
    world.server.delete("basaltclusters", NAMESPACE, "second");
    world.until(10, "it goes", |world| world.cluster("second").is_null()).await;
    let claim = world.server.get("persistentvolumeclaims", NAMESPACE, "demo-data");
    assert!(claim.is_some_and(|claim| claim["metadata"]["deletionTimestamp"].is_null()));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_deletes_its_own_claim_where_its_policy_says_so_and_no_other_that_came_later() {
    let world = World::new();
    let _operator = world.operator();
    world.write_cluster("demo", json!({ "deletionPolicy": "Delete" }));
    world.until_ready("demo").await;
    world.server.delete("basaltclusters", NAMESPACE, "demo");
    let claim = |world: &World| world.server.get("persistentvolumeclaims", NAMESPACE, "demo-data");
    world.until(10, "the claim goes with it", |world| claim(world).is_none()).await;

    world.write_claim("demo-data");
    world.write_cluster("demo", json!({ "deletionPolicy": "Delete" }));
    world.until_ready("demo").await;
    world.server.delete("persistentvolumeclaims", NAMESPACE, "demo-data");
    world.write_claim("demo-data");
    world.server.delete("basaltclusters", NAMESPACE, "demo");
    world.until(10, "the cluster goes", |world| world.cluster("demo").is_null()).await;
    assert!(claim(&world).is_some(), "another claim has the name");
}

#[tokio::test(start_paused = true)]
async fn objects_of_others_with_the_same_name_are_not_touched_and_the_cluster_says_so() {
    for (plural, kind, name) in [
        ("services", "Service", "demo"),
        ("configmaps", "ConfigMap", "demo-client"),
        ("statefulsets", "StatefulSet", "demo-master"),
        ("rolebindings", "RoleBinding", "demo-master"),
        ("poddisruptionbudgets", "PodDisruptionBudget", "demo-master"),
    ] {
        let world = World::new();
        let foreign = json!({
            "kind": kind,
            "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "app": "shop" } },
            "spec": { "replicas": 0, "selector": { "app": "shop" } },
        });
        world.server.write(plural, foreign);
        let theirs = |world: &World| {
            let mut found = world.server.get(plural, NAMESPACE, name).unwrap();
            found.as_object_mut().unwrap().remove("status");
            found["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            found
        };
        let before = theirs(&world);
        let _operator = world.operator();
        world.write_cluster("demo", json!({}));
        world
            .until(10, "the conflict is named", |world| {
                let (status, _, message) = world.condition("demo", "Conflict");
                status == "True" && message.contains(kind) && message.contains(name)
            })
            .await;
        assert_eq!(world.phase("demo"), "Conflict");
        sleep(Duration::from_secs(30)).await;
        assert_eq!(theirs(&world), before, "{plural}");
        assert!(world.pods().is_empty(), "nothing is half made");
        world.server.delete("basaltclusters", NAMESPACE, "demo");
        world.until(10, "it goes", |world| world.cluster("demo").is_null()).await;
        assert_eq!(theirs(&world), before, "{plural}");

        world.write_cluster("demo", json!({}));
        world.until(10, "again", |world| world.phase("demo") == "Conflict").await;
        world.server.delete(plural, NAMESPACE, name);
        world.until_ready("demo").await;
        assert_eq!(world.condition("demo", "Conflict").0, "False");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_and_monitors_of_others_are_left_alone() {
    let world = World::new();
    world.server.write("pods", look_alike());
    world.server.write(
        "podmonitors",
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
            "metadata": { "name": "demo", "namespace": NAMESPACE },
        }),
    );
    let _operator = ready_cluster(&world).await;
    change_all(&world);
    world.until_ready("demo").await;
    let pod = world.server.get("pods", NAMESPACE, "alike").unwrap();
    assert!(pod["metadata"]["deletionTimestamp"].is_null());
    assert!(world.server.get("podmonitors", NAMESPACE, "demo").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_the_same_name_waits_until_the_objects_of_the_one_before_are_gone() {
    let world = World::new();
    let _operator = ready_cluster(&world).await;
    let before = world.pods();
    world.server.delete("basaltclusters", NAMESPACE, "demo");
    world.until(10, "it goes", |world| world.cluster("demo").is_null()).await;
    world.write_cluster("demo", json!({}));
    world.until_ready("demo").await;
    assert!(world.pods().iter().all(|pod| !before.contains(pod)));
}

// ---- A20: the status is true in every phase
// -------------------------------------------------------

fn break_all(world: &World) {
    for (name, _) in world.pods() {
        let labels = json!({ BROKEN: "yes" });
        let metadata = json!({ "name": name, "namespace": NAMESPACE, "labels": labels });
        world.server.write("pods", json!({ "metadata": metadata }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_completely_down_says_so_in_every_phase() {
    for (spec, phase) in [
        (json!({}), "Degraded"),
        (json!({ "paused": true }), "Paused"),
        (json!({ "masters": { "replicas": 77 } }), "Invalid"),
        (json!({ "masters": { "resources": { "requests": { "cpu": "lots" } } } }), "Invalid"),
    ] {
        let world = World::new();
        let _operator = ready_cluster(&world).await;
        world.write_cluster("demo", spec.clone());
        if phase != "Degraded" {
            world.until(10, "the phase", |world| world.phase("demo") == phase).await;
            assert_eq!(world.condition("demo", "Available").0, "True", "{spec}");
        }
        break_all(&world);
        world
            .until(40, "it is not available", |world| {
                world.condition("demo", "Available").0 == "False"
            })
            .await;
        // It must stay so, not only in the round that noticed it.
        sleep(Duration::from_secs(90)).await;
        assert_eq!(world.phase("demo"), phase, "{spec}");
        let (status, _, message) = world.condition("demo", "Degraded");
        assert_eq!(status, "True", "{spec}: {message}");
        assert!(!message.contains("nothing is missing"));
        assert_eq!(world.condition("demo", "Ready").0, "False", "{spec}");
        assert_eq!(world.cluster("demo")["status"]["readyMembers"], "0/8", "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_refuses_is_in_the_status() {
    let world = World::new();
    let rejection = Rejection { method: "PATCH", path: "/roles/", code: 403, times: usize::MAX };
    world.server.reject(rejection);
    let _operator = world.operator();
    world.write_cluster("demo", json!({}));
    world
        .until(20, "the status names it", |world| {
            let (status, reason, message) = world.condition("demo", "Progressing");
            status == "False" && reason == "Failed" && message.contains("Role demo-master")
        })
        .await;
}
