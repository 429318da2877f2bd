//! A whole local cluster of stand-ins: each child reports that it is ready and waits for its end.

#![expect(clippy::unwrap_used, reason = "a test may fail by it")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use basalt::local::{Hosts, LocalCluster, LocalOptions, PortName, ProcessState};
use basalt::role_config::RoleName;
use basalt_api::{Manifests, ValidatedCluster, validate};
use basalt_runtime::Seams;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

fn demo() -> ValidatedCluster {
    let text = include_str!("../../examples/cluster.yaml");
    let manifests = Manifests::from_yaml("cluster.yaml", text).unwrap();
    let (cluster, tables) = manifests.into_single_cluster("cluster.yaml").unwrap();
    validate(&cluster, &tables).unwrap()
}

/// Tests that use free ports run one at a time: a test could get a port that another one has just
/// released.
static PORTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A program that replaces `basalt`. It ends when its standard input ends.
fn stand_in(folder: &Path) -> PathBuf {
    let program = folder.join("stand-in");
    // It asks to die with its parent, as the roles do.
    let script = "#!/bin/sh\necho \"$@\" >&2\n\
        exec setpriv --pdeathsig KILL sh -c 'echo ready; exec cat'\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

async fn start(folder: &Path, free_ports: bool) -> anyhow::Result<LocalCluster> {
    let options = LocalOptions {
        data: folder.join("data"),
        free_ports,
        hdfs_conf: None,
        program: stand_in(folder),
        hosts: Hosts::default(),
    };
    LocalCluster::start(&demo(), options, &Seams::system()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_started_again_is_the_same_one_at_the_same_ports() {
    let _turn = PORTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), true).await.unwrap();
    first.supervisor().wait_all_ready(PATIENCE).await.unwrap();
    assert_eq!(first.supervisor().states().len(), 8);
    let addresses = first.plan().addresses(RoleName::Coordinator, PortName::Client);
    let uid = first.folder().identity.uid.clone();
    std::fs::write(folder.path().join("data/demo-data/row"), "kept").unwrap();
    first.supervisor().stop(PATIENCE).await;
    drop(first);

    let again = start(folder.path(), false).await.unwrap();
    again.supervisor().wait_all_ready(PATIENCE).await.unwrap();
    assert_eq!(again.plan().addresses(RoleName::Coordinator, PortName::Client), addresses);
    assert_eq!(again.folder().identity.uid, uid);
    assert!(folder.path().join("data/demo-data/row").exists());
    let log = std::fs::read_to_string(again.log("regionserver-2")).unwrap();
    assert!(log.starts_with("regionserver --config "), "{log}");
    assert_eq!(log.lines().count(), 2, "one line for each life: {log}");
    again.supervisor().stop(PATIENCE).await;
    let states = again.supervisor().states();
    assert!(states.values().all(|state| *state == ProcessState::Stopped), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_its_process() {
    let _turn = PORTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path(), true).await.unwrap();
    let address = first.plan().addresses(RoleName::Master, PortName::Rpc)[1].clone();
    first.supervisor().stop(PATIENCE).await;
    drop(first);
    let _other = Seams::system().network.listen(address.parse().unwrap()).await.unwrap();
    let error = start(folder.path(), false).await.unwrap_err().to_string();
    let port = address.rsplit_once(':').unwrap().1;
    assert!(error.starts_with(&format!("port {port}, for the rpc port of master-1")), "{error}");
    assert!(error.contains("--free-ports"), "{error}");
}

#[test]
fn a_manifest_that_cannot_be_run_is_refused_with_all_its_problems() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    let text = include_str!("../../examples/cluster.yaml")
        .replace("masters: { replicas: 2 }", "masters: { replicas: 20 }")
        .replace("regionReplicas: 1", "regionReplicas: 3");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(["local", "-f"])
        .arg(&file)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    for part in ["cluster.yaml cannot be run", "spec.masters.replicas", "spec.regionReplicas"] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(!folder.path().join("basalt-data").exists(), "nothing was made");
}

/// `basalt local` with stand-ins, and the process ids of its eight children once all are ready.
fn run_local(folder: &Path) -> (Child, Vec<u32>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cluster.yaml");
    let mut local = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(["local", "--free-ports", "--data"])
        .arg(folder.join("data"))
        .arg("--program")
        .arg(stand_in(folder))
        .arg("-f")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(local.stdout.as_mut().unwrap()).lines();
    let mut is_ready = lines.by_ref().map(Result::unwrap);
    assert!(is_ready.any(|line| line.starts_with("Ready after")));
    let mut pids = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", local.id())).unwrap() {
        let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        pids.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    assert_eq!(pids.len(), 8);
    (local, pids)
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// The state of a process as `proc(5)` has it; `None` if there is none.
fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process no longer runs. It may not have been reaped yet.
fn is_dead(pid: u32) -> bool {
    matches!(process_state(pid), None | Some('Z' | 'X'))
}

fn wait_dead(pids: &[u32]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !pids.iter().all(|pid| is_dead(*pid)) {
        let states: Vec<_> = pids.iter().map(|pid| (*pid, process_state(*pid))).collect();
        assert!(tokio::time::Instant::now() < deadline, "some are alive: {states:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn children_die_with_a_supervisor_that_is_killed_even_a_paused_one() {
    let _turn = PORTS.blocking_lock();
    let folder = tempfile::tempdir().unwrap();
    let (mut local, pids) = run_local(folder.path());
    send(pids[0], Signal::STOP);
    local.kill().unwrap();
    local.wait().unwrap();
    wait_dead(&pids);
}

#[test]
fn ctrl_c_stops_everything_and_ends_well() {
    let _turn = PORTS.blocking_lock();
    let folder = tempfile::tempdir().unwrap();
    let (mut local, pids) = run_local(folder.path());
    send(local.id(), Signal::INT);
    let mut rest = String::new();
    local.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(local.wait().unwrap().success());
    assert!(rest.contains("Stopping") && rest.contains("Stopped after"), "{rest}");
    wait_dead(&pids);
}

/// With transparent huge pages the memory would be three times as large.
#[test]
fn no_memory_is_in_transparent_huge_pages() {
    let _turn = PORTS.blocking_lock();
    let folder = tempfile::tempdir().unwrap();
    let (mut local, pids) = run_local(folder.path());
    for pid in pids.iter().copied().chain([local.id()]) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("\nTHP_enabled:\t0\n"), "{pid}: {status}");
    }
    local.kill().unwrap();
    local.wait().unwrap();
    wait_dead(&pids);
}

/// With `basalt local … | head -3`.
#[test]
fn a_cluster_outlives_the_reader_of_its_output() {
    let _turn = PORTS.blocking_lock();
    let folder = tempfile::tempdir().unwrap();
    let (mut local, pids) = run_local(folder.path());
    drop(local.stdout.take());
    // Each death prints a line.
    send(pids[0], Signal::KILL);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while process_state(pids[0]).is_some() {
        assert!(tokio::time::Instant::now() < deadline, "it was not reaped");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(pids[1..].iter().all(|pid| !is_dead(*pid)), "the others run on");
    send(local.id(), Signal::INT);
    assert!(local.wait().unwrap().success());
    wait_dead(&pids);
}

#[test]
fn a_cluster_whose_processes_cannot_start_stops_with_the_reason() {
    let _turn = PORTS.blocking_lock();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("stand-in");
    std::fs::write(&program, "#!/bin/sh\necho 'basalt: the reason' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cluster.yaml");
    let ended = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(["local", "--free-ports", "--data"])
        .arg(folder.path().join("data"))
        .arg("--program")
        .arg(program)
        .arg("-f")
        .arg(file)
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let message = String::from_utf8(ended.stderr).unwrap();
    for part in ["has never served", "exit code 1", "basalt: the reason", "data/logs"] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
