//! The supervisor with real children: the binary's own idle role.

#![expect(clippy::unwrap_used, reason = "a test may fail by it")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use basalt::local::{Death, DeathHook, Error, Event, Launch, ProcessState, Supervisor};
use basalt::role_config::RoleName;
use basalt_runtime::{Clock, SystemClock};
use tokio::sync::broadcast;

const PATIENCE: Duration = Duration::from_secs(30);

fn launch(folder: &Path, name: &str, role: RoleName, stubborn: bool) -> Launch {
    let config = folder.join(format!("{name}.json"));
    let text = format!(
        r#"{{ "role": "idle", "cluster": "c", "clusterUid": "u", "process": "{name}",
              "logLevel": "info", "supervised": true, "failover": {{}},
              "settings": {{ "stubborn": {stubborn} }} }}"#
    );
    std::fs::write(&config, text).unwrap();
    Launch {
        name: name.to_owned(),
        role,
        program: env!("CARGO_BIN_EXE_basalt").into(),
        arguments: vec!["idle".into(), "--config".into(), config.into()],
        log: folder.join(format!("{name}.log")),
    }
}

fn start(launches: Vec<Launch>) -> (Supervisor, Arc<Mutex<Vec<Death>>>) {
    let deaths = Arc::new(Mutex::new(Vec::new()));
    let recorded = deaths.clone();
    let hook: DeathHook = Arc::new(move |death: Death| {
        recorded.lock().unwrap().push(death);
        Box::pin(async {})
    });
    (Supervisor::start(launches, &Clock::new(SystemClock), &hook), deaths)
}

async fn next_death(events: &mut broadcast::Receiver<Event>) -> (Death, Option<Duration>) {
    let wait = async {
        loop {
            if let Event::Died { death, again_after } = events.recv().await.unwrap() {
                return (death, again_after);
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

async fn wait_for(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

fn pid_of(supervisor: &Supervisor, name: &str) -> u32 {
    match supervisor.state(name).unwrap() {
        ProcessState::Ready { pid } => pid,
        other => panic!("{name} is {other:?}"),
    }
}

/// The state letter of a process on Linux. `None` if the process does not exist.
fn letter(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_is_reaped_reported_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, deaths) = start(vec![launch(folder.path(), "a", RoleName::Idle, false)]);
    supervisor.wait_ready("a", PATIENCE).await.unwrap();
    let pid = pid_of(&supervisor, "a");
    let mut events = supervisor.events();
    supervisor.kill("a").await.unwrap();
    let (death, again_after) = next_death(&mut events).await;
    assert_eq!((death.pid, death.how.as_str(), death.asked), (pid, "killed by SIGKILL", false));
    assert_eq!(letter(pid), None, "a reaped process is gone");
    assert_eq!(again_after, Some(Duration::ZERO));
    supervisor.wait_ready("a", PATIENCE).await.unwrap();
    assert_ne!(pid_of(&supervisor, "a"), pid);
    assert_eq!(deaths.lock().unwrap().as_slice(), [death]);
    supervisor.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_life_has_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, _) = start(vec![launch(folder.path(), "a", RoleName::Idle, false)]);
    let mut events = supervisor.events();
    let mut lives = Vec::new();
    for _ in 0..2 {
        supervisor.wait_ready("a", PATIENCE).await.unwrap();
        supervisor.kill("a").await.unwrap();
        lives.push(next_death(&mut events).await.0.instance);
    }
    assert_ne!(lives[0], lives[1]);
    let log = std::fs::read_to_string(folder.path().join("a.log")).unwrap();
    assert!(log.contains(&lives[0]), "the child has instance {:?}: {log}", lives[0]);
    supervisor.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_child_stays_down_until_it_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, _) = start(vec![launch(folder.path(), "a", RoleName::Idle, false)]);
    supervisor.wait_ready("a", PATIENCE).await.unwrap();
    let mut events = supervisor.events();
    supervisor.hold("a").await.unwrap();
    supervisor.kill("a").await.unwrap();
    assert_eq!(next_death(&mut events).await.1, None);
    wait_for(|| supervisor.state("a").unwrap() == ProcessState::Held).await;
    supervisor.release("a").await.unwrap();
    supervisor.wait_ready("a", PATIENCE).await.unwrap();
    supervisor.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_child_stands_still_resumes_and_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, deaths) = start(vec![launch(folder.path(), "a", RoleName::Idle, false)]);
    supervisor.wait_ready("a", PATIENCE).await.unwrap();
    let pid = pid_of(&supervisor, "a");
    supervisor.pause("a").await.unwrap();
    wait_for(|| letter(pid) == Some('T')).await;
    supervisor.resume("a").await.unwrap();
    wait_for(|| letter(pid) != Some('T')).await;
    supervisor.pause("a").await.unwrap();
    wait_for(|| letter(pid) == Some('T')).await;
    supervisor.stop(PATIENCE).await;
    assert_eq!(deaths.lock().unwrap()[0].how, "ended", "it was woken to stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn region_servers_stop_before_masters_and_those_before_the_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        ("c", RoleName::Coordinator),
        ("m", RoleName::Master),
        ("r1", RoleName::RegionServer),
        ("r2", RoleName::RegionServer),
    ];
    let launches = names.map(|(name, role)| launch(folder.path(), name, role, false));
    let (supervisor, deaths) = start(launches.to_vec());
    supervisor.wait_all_ready(PATIENCE).await.unwrap();
    supervisor.stop(PATIENCE).await;
    let deaths = deaths.lock().unwrap();
    let order: Vec<_> = deaths.iter().map(|death| death.role).collect();
    let expected =
        [RoleName::RegionServer, RoleName::RegionServer, RoleName::Master, RoleName::Coordinator];
    assert_eq!(order, expected);
    assert!(deaths.iter().all(|death| death.asked && death.how == "ended"), "{deaths:?}");
    assert!(supervisor.states().values().all(|state| *state == ProcessState::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_stop_is_killed_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, deaths) = start(vec![launch(folder.path(), "a", RoleName::Idle, true)]);
    supervisor.wait_ready("a", PATIENCE).await.unwrap();
    supervisor.stop(Duration::from_millis(50)).await;
    assert_eq!(deaths.lock().unwrap()[0].how, "killed by SIGKILL");
    let error = supervisor.kill("a").await.unwrap_err();
    assert_eq!(error, Error::Stopped { name: "a".to_owned() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_cannot_start_is_reported_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut broken = launch(folder.path(), "a", RoleName::Idle, false);
    broken.log = folder.path().join("missing/a.log");
    let (supervisor, _) = start(vec![broken]);
    let mut events = supervisor.events();
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
    assert!(matches!(&event, Event::NotStarted { process, .. } if process == "a"), "{event:?}");
    let error = supervisor.wait_all_ready(Duration::from_millis(10)).await.unwrap_err();
    assert!(error.to_string().ends_with(": a"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_is_answered_with_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, _) = start(vec![launch(folder.path(), "a", RoleName::Idle, false)]);
    let error = supervisor.kill("b").await.unwrap_err().to_string();
    assert_eq!(error, "there is no process b; the processes are a");
}
