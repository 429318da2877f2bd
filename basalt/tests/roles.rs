//! The frame of a role: how a process ends, and how it reports an invalid file.

#![expect(clippy::unwrap_used, reason = "a test may fail by it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn spawn(folder: &Path, supervised: bool) -> Child {
    let mut child = spawn_with(folder, supervised, Stdio::piped(), Stdio::null());
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn spawn_with(folder: &Path, supervised: bool, output: Stdio, log: Stdio) -> Child {
    let config = folder.join("idle.json");
    let text = format!(
        r#"{{ "role": "idle", "cluster": "c", "clusterUid": "u", "process": "idle-0",
              "logLevel": "info", "supervised": {supervised},
              "failover": {{}}, "settings": {{}} }}"#
    );
    std::fs::write(&config, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(["idle", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(log)
        .spawn()
        .unwrap()
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

/// Simulates what the kernel does to the pipe when `basalt local` is killed with SIGKILL.
#[test]
fn a_supervised_process_ends_when_its_supervisor_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = spawn(folder.path(), true);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_process_that_is_asked_to_stop_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = spawn(folder.path(), false);
    drop(child.stdin.take());
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A file on a full disk.
fn full() -> Stdio {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_process_whose_log_cannot_be_written_serves_and_stops_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = spawn_with(folder.path(), false, Stdio::piped(), full());
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_process_that_cannot_say_that_it_is_ready_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = spawn_with(folder.path(), false, full(), Stdio::piped());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("starting")));
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Unlike other output, the result of a command must be written: without it, the command has
/// failed.
#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let mut crds = Command::new(env!("CARGO_BIN_EXE_basalt"));
    let ended = crds.arg("crds").stdout(full()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let message = String::from_utf8(ended.stderr).unwrap();
    assert!(message.contains("cannot write to standard output"), "{message}");
}

#[test]
fn a_wrong_file_is_named_with_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("master.json");
    std::fs::write(&config, r#"{ "role": "master", "cluster": 3 }"#).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(["master", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("master.json") && message.contains("cluster"), "{message}");
}
