//! The operator is killed at each of its writes in turn, before and after the API server has
//! executed it. Lists are stale and watches are frozen when the next operator starts. The end state
//! must be that of a run without faults. In addition, each field of the manifest is set, changed,
//! removed and restored. The end state must be that of a fresh install.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::Kill;
use super::world::{NAMESPACE, Operator, World, notify};

/// The changes of a cluster's spec, in sequence. After each one the cluster must reach its desired
/// state.
const LIFE: [(&str, u32); 2] = [("info", 3), ("debug", 2)];
/// How long the operator may take, including a kill in between.
const PATIENCE_S: u64 = 300;

/// Leads a cluster through all changes, and kills the operator at `kill`: the number of the write,
/// and whether the API server executes it. Returns the number of writes and the end state.
async fn life(kill: Option<(usize, bool)>, is_blind_afterwards: bool) -> (usize, Vec<String>) {
    let world = World::new();
    let mut operator = Some(world.operator());
    let now = notify();
    let (write, is_written) = kill.unwrap_or((usize::MAX, true));
    world.server.kill_at(Kill { write, is_written, now: now.clone() });
    let mut is_killed = false;
    for (level, region_servers) in LIFE {
        world.write_cluster(
            "demo",
            json!({
                "logging": { "level": level }, "regionServers": { "replicas": region_servers },
            }),
        );
        tokio::select! {
            biased;
            () = now.notified(), if !is_killed => {
                is_killed = true;
                operator = restart(&world, operator.take(), is_blind_afterwards).await;
                world.until_ready("demo").await;
            }
            () = world.until_ready("demo") => {}
        }
        // Some writes follow after the phase is Ready.
        tokio::select! {
            biased;
            () = now.notified(), if !is_killed => {
                is_killed = true;
                operator = restart(&world, operator.take(), is_blind_afterwards).await;
                world.until_ready("demo").await;
            }
            () = sleep(Duration::from_secs(5)) => {}
        }
    }
    sleep(Duration::from_secs(40)).await;
    world.until_ready("demo").await;
    let writes = world.server.writes();
    drop(operator);
    (writes, world.end_state())
}

async fn restart(world: &World, dead: Option<Operator>, is_blind: bool) -> Option<Operator> {
    if let Some(dead) = dead {
        dead.kill().await;
    }
    if is_blind {
        world.server.go_stale(&["pods", "statefulsets", "services", "basaltclusters"]);
    }
    // Meanwhile the controllers continue.
    sleep(Duration::from_secs(2)).await;
    let next = world.operator();
    if is_blind {
        sleep(Duration::from_secs(20)).await;
        world.server.recover();
    }
    Some(next)
}

fn assert_same(found: &[String], wanted: &[String], what: &str) {
    for object in wanted {
        let differing = found.iter().filter(|other| !wanted.contains(other));
        let differing: Vec<&String> = differing.collect();
        assert!(found.contains(object), "{what}: wanted {object}, found of others {differing:#?}");
    }
    assert_eq!(found.len(), wanted.len(), "{what}: {found:#?}");
}

/// Kills at every `step`-th write from `from` on.
async fn kill_at_each(from: usize, step: usize, is_written: bool, is_blind: bool) {
    let (writes, wanted) = life(None, false).await;
    assert!(writes > 60, "{writes} writes");
    for write in (from..=writes).step_by(step) {
        let what = format!("killed at write {write} of {writes}, written: {is_written}");
        let run =
            timeout(Duration::from_secs(PATIENCE_S * 4), life(Some((write, is_written)), is_blind));
        let (_, found) = run.await.expect(&what);
        assert_same(&found, &wanted, &what);
    }
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes of processor time: --ignored"]
async fn an_operator_killed_after_any_of_its_writes_is_followed_by_one_that_goes_on() {
    kill_at_each(1, 1, true, false).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes of processor time: --ignored"]
async fn an_operator_killed_before_any_of_its_writes_is_followed_by_one_that_goes_on() {
    kill_at_each(1, 3, false, false).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes of processor time: --ignored"]
async fn the_one_that_follows_may_see_an_old_state_at_first() {
    kill_at_each(2, 5, true, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_seen_although_watches_stand_still() {
    let world = World::new();
    let _operator = world.operator();
    world.write_cluster("demo", json!({}));
    world.until_ready("demo").await;
    world.server.freeze_watches();
    world.write_cluster("demo", json!({ "logging": { "level": "debug" } }));
    world.until_ready("demo").await;
    world.server.recover();
    world.until_ready("demo").await;
}

/// Two values for every field that may be changed while a cluster runs.
fn fields() -> Vec<(&'static str, Value, Value)> {
    let template = |level: &str| {
        let env = json!([{ "name": "RUST_LOG", "value": level }]);
        let containers = json!([{ "name": "basalt", "env": env }]);
        json!({ "spec": { "containers": containers, "priorityClassName": level } })
    };
    let resources = |memory: &str| json!({ "limits": { "memory": memory } });
    vec![
        ("/failover/target", json!("5s"), json!("10s")),
        ("/failover/overrides", json!({ "clientPause": "20ms" }), json!({ "clientPause": "30ms" })),
        ("/coordinator/resources", resources("1Gi"), resources("2Gi")),
        ("/coordinator/podTemplate", template("a"), template("b")),
        ("/masters/replicas", json!(3), json!(1)),
        ("/masters/resources", resources("1Gi"), resources("2Gi")),
        ("/masters/podTemplate", template("a"), template("b")),
        ("/regionServers/replicas", json!(4), json!(2)),
        ("/regionServers/maxUnavailable", json!(2), json!(3)),
        ("/regionServers/resources", resources("1Gi"), resources("2Gi")),
        ("/regionServers/podTemplate", template("a"), template("b")),
        (
            "/regionServers/config",
            json!({ "hbase.regionserver.maxlogs": "9" }),
            json!({ "hbase.regionserver.maxlogs": "10" }),
        ),
        ("/placement/rackLabel", json!("rack"), json!("room")),
        ("/placement/localRacks", json!(["a"]), json!(["b"])),
        ("/image/repository", json!("a/basalt"), json!("b/basalt")),
        ("/image/tag", json!("1"), json!("2")),
        ("/image/pullPolicy", json!("Always"), json!("Never")),
        ("/image/pullSecrets", json!(["a"]), json!(["b", "c"])),
        ("/deletionPolicy", json!("Delete"), json!("Retain")),
        ("/paused", json!(true), json!(false)),
        ("/logging/level", json!("debug"), json!("warn")),
    ]
}

/// A spec with `value` at `path`. `null` removes the field.
fn spec_with(path: &str, value: &Value) -> Value {
    let names = path.trim_start_matches('/').rsplit('/');
    names.fold(value.clone(), |inner, name| json!({ name: inner }))
}

/// Waits until the cluster is in its desired state, or is left alone on purpose.
async fn until_settled(world: &World) {
    world
        .until(PATIENCE_S, "settled", |world| {
            let object = world.cluster("demo");
            let phase = object["status"]["phase"].as_str().unwrap_or_default();
            ["Ready", "Paused"].contains(&phase)
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        })
        .await;
}

async fn fresh(spec: Value) -> Vec<String> {
    let world = World::new();
    let _operator = world.operator();
    world.write_cluster("demo", spec);
    until_settled(&world).await;
    sleep(Duration::from_secs(40)).await;
    world.end_state()
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes of processor time: --ignored"]
async fn each_field_that_is_set_changed_removed_and_put_back_leaves_what_a_fresh_install_has() {
    let plain = fresh(json!({})).await;
    for (path, one, other) in fields() {
        let world = World::new();
        let _operator = world.operator();
        world.write_cluster("demo", json!({}));
        until_settled(&world).await;
        for value in [&one, &other, &Value::Null] {
            world.write_cluster("demo", spec_with(path, &Value::Null));
            world.write_cluster("demo", spec_with(path, value));
            until_settled(&world).await;
        }
        sleep(Duration::from_secs(40)).await;
        assert_same(&without_empty(&world).end_state(), &plain, &format!("{path} was removed"));
        world.write_cluster("demo", spec_with(path, &one));
        until_settled(&world).await;
        sleep(Duration::from_secs(40)).await;
        if path != "/paused" {
            let wanted = fresh(spec_with(path, &one)).await;
            assert_same(&world.end_state(), &wanted, &format!("{path} was put back"));
        }
    }
}

/// The world without the empty objects that a removed field leaves in the manifest.
fn without_empty(world: &World) -> &World {
    let cluster = world.cluster("demo");
    let fields = cluster["spec"].as_object().unwrap().iter();
    let empty =
        fields.filter(|(_, value)| value.as_object().is_some_and(serde_json::Map::is_empty));
    let empty: serde_json::Map<_, _> = empty.map(|(name, _)| (name.clone(), Value::Null)).collect();
    if !empty.is_empty() {
        let metadata = json!({ "name": "demo", "namespace": NAMESPACE });
        world.server.write("basaltclusters", json!({ "metadata": metadata, "spec": empty }));
    }
    world
}
