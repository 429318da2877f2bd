//! The guarantees of the model and their limits. Each test is a simulation with one client.

use std::path::Path;
use std::time::Duration;

use basalt_fs::{AppendFile, Durable, FileSystem};
use basalt_runtime::Random;
use bytes::Bytes;
use tokio::time::sleep;

use super::{Hdfs, HdfsClient, HdfsFault, Outage};
use crate::disk::DiskFaults;
use crate::trace::Trace;

const LOG: &str = "/log";
/// The DataNode on the writer's machine; a log is on the other three.
const OWN: u64 = 0;

/// An HDFS with four DataNodes, and two clients of it: a writer and a master.
struct World {
    hdfs: Hdfs,
    writer: HdfsClient,
    master: HdfsClient,
}

impl World {
    fn new(seed: u64) -> Self {
        let hdfs = Hdfs::new(4, Random::from_seed(seed), &Trace::default());
        let client = |writer, own| {
            let random = Random::from_seed(seed + writer);
            HdfsClient::new(hdfs.clone(), writer, random, DiskFaults::default(), own)
        };
        let (writer, master) = (client(101, Some(OWN)), client(1, None));
        Self { hdfs, writer, master }
    }

    /// Creates a log that contains `acknowledged`.
    async fn log(&self, acknowledged: &'static str) -> Box<dyn AppendFile> {
        let mut log = self.writer.create_log(Path::new(LOG)).await.unwrap();
        log.append_and_sync(Bytes::from_static(acknowledged.as_bytes())).await.unwrap();
        log
    }

    fn inject(&self, action: HdfsFault) {
        self.hdfs.inject(turmoil::sim_elapsed().unwrap(), action, None);
    }

    fn heal(&self, action: HdfsFault) {
        self.hdfs.heal(turmoil::sim_elapsed().unwrap(), action);
    }

    fn kill_writer(&self) {
        self.hdfs.crash(turmoil::sim_elapsed().unwrap(), 101);
    }

    async fn read(&self, path: &str) -> String {
        let read = self.master.read_whole(Path::new(path), 1_000).await.unwrap();
        String::from_utf8(read.to_vec()).unwrap()
    }
}

/// Runs `client` while the HDFS does its own work.
fn simulate<F>(seed: u64, client: impl FnOnce(World) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let lasts = Duration::from_mins(2);
    let mut sim = turmoil::Builder::new().rng_seed(seed).simulation_duration(lasts).build();
    let world = World::new(seed);
    let hdfs = world.hdfs.clone();
    let client = client(world);
    sim.client("client", async move {
        client.await;
        Ok(())
    });
    loop {
        hdfs.tick(sim.elapsed());
        if sim.step().unwrap() {
            return;
        }
    }
}

const fn hang(node: u64) -> HdfsFault {
    HdfsFault::DataNode(node, Outage::Hang)
}

#[test]
fn what_is_acknowledged_outlasts_its_writer_and_any_one_machine() {
    for node in 1..4 {
        simulate(node, |world| async move {
            let mut log = world.log("acknowledged").await;
            let begun = log.append_and_begin_sync(Bytes::from_static(b", perhaps")).await;
            assert!(matches!(begun, Ok(Durable::Later(_))));
            let power_cut = HdfsFault::DataNode(node, Outage::PowerCut);
            world.inject(power_cut);
            world.kill_writer();
            assert!(log.append_and_sync(Bytes::from_static(b"!")).await.is_err());
            let seal = world.master.seal(Path::new(LOG), "").await.unwrap();
            assert!(seal.is_final && !seal.writer_gone && !seal.may_shrink, "{seal:?}");
            let read = world.read(LOG).await;
            assert_eq!(read.len() as u64, seal.length);
            assert!(read.starts_with("acknowledged"), "{read}");
            world.heal(power_cut);
            sleep(Duration::from_secs(4)).await;
            assert_eq!(world.read(LOG).await, read);
        });
    }
}

#[test]
fn a_sync_waits_for_every_replica_and_fails_with_one() {
    simulate(1, |world| async move {
        let mut log = world.log("a").await;
        let Durable::Later(first) = log.append_and_begin_sync("b".into()).await.unwrap() else {
            panic!("it is durable at once");
        };
        let Durable::Later(second) = log.append_and_begin_sync("c".into()).await.unwrap() else {
            panic!("it is durable at once");
        };
        second.await.unwrap();
        first.await.unwrap();
        world.inject(hang(2));
        assert!(log.append_and_sync("d".into()).await.is_err());
        world.heal(hang(2));
        assert!(log.append_and_sync("e".into()).await.is_err(), "it was given up");
        assert!(log.give_up().await, "all three are there");
        assert!(world.read(LOG).await.starts_with("abc"));
    });
}

#[test]
fn a_log_that_is_sealed_while_two_replicas_are_away_may_shrink_and_does() {
    let mut shrunk = 0;
    for seed in 1..20 {
        let (sender, receiver) = std::sync::mpsc::channel();
        simulate(seed, move |world| async move {
            let mut log = world.log("acknowledged").await;
            world.inject(hang(1));
            world.inject(hang(2));
            log.append(Bytes::from_static(b", and not")).await.unwrap();
            sleep(Duration::from_millis(20)).await;
            world.kill_writer();
            let seal = world.master.seal(Path::new(LOG), "").await.unwrap();
            assert!(seal.is_final && seal.may_shrink, "{seal:?}");
            let copied = world.master.copy_start(Path::new(LOG), Path::new("/copy"), seal.length);
            copied.await.unwrap();
            world.inject(HdfsFault::Return);
            sleep(Duration::from_secs(1)).await;
            let read = world.read(LOG).await;
            assert!(read.starts_with("acknowledged"), "{read}");
            assert_eq!(world.read("/copy").await.len() as u64, seal.length);
            sender.send(seal.length - read.len() as u64).unwrap();
        });
        shrunk += u64::from(receiver.recv().unwrap() > 0);
    }
    assert!(shrunk > 0, "none of them did");
}

#[test]
fn a_file_begun_on_two_data_nodes_is_in_few_copies() {
    simulate(1, |world| async move {
        world.inject(HdfsFault::DataNode(1, Outage::Kill));
        world.inject(HdfsFault::DataNode(OWN, Outage::Kill));
        let mut log = world.log("a").await;
        assert!(!log.has_few_copies());
        sleep(Duration::from_secs(5)).await;
        assert!(log.has_few_copies());
        world.inject(HdfsFault::DataNode(2, Outage::Kill));
        assert!(log.append_and_sync("b".into()).await.is_err());
        assert!(!log.give_up().await, "it is on one DataNode");
    });
}

#[test]
fn a_name_node_in_safe_mode_answers_reads_and_refuses_changes() {
    simulate(1, |world| async move {
        let mut log = world.log("a").await;
        world.inject(HdfsFault::SafeMode);
        log.append_and_sync("b".into()).await.unwrap();
        assert_eq!(world.read(LOG).await, "ab");
        let refused = world.master.create(Path::new("/other")).await.err().unwrap();
        assert!(refused.to_string().contains("SafeMode"), "{refused}");
        assert!(world.master.seal(Path::new(LOG), "").await.is_err());
        world.heal(HdfsFault::SafeMode);
        drop(world.master.create(Path::new("/other")).await.unwrap());
    });
}

#[test]
fn a_block_whose_data_nodes_have_not_reported_is_an_error_and_not_empty() {
    simulate(1, |world| async move {
        let mut log = world.log("acknowledged").await;
        world.kill_writer();
        assert!(log.append("!".into()).await.is_err());
        for node in 0..4 {
            world.inject(hang(node));
        }
        let restart = HdfsFault::NameNodeRestart { safe_mode_ms: 0 };
        world.inject(restart);
        world.heal(restart);
        assert!(world.master.open(Path::new(LOG)).await.is_err());
        assert!(world.master.seal(Path::new(LOG), "").await.is_err());
        (0..4).for_each(|node| world.heal(hang(node)));
        sleep(Duration::from_secs(3)).await;
        let seal = world.master.seal(Path::new(LOG), "").await.unwrap();
        assert_eq!(seal.length, 12);
    });
}

#[test]
fn an_end_of_a_file_that_nobody_closed_comes_by_itself() {
    simulate(3, |world| async move {
        drop(world.log("left").await);
        sleep(Duration::from_secs(1)).await;
        let entries = world.master.list(Path::new("/")).await.unwrap();
        assert_eq!(entries[0].length, 4);
        let seal = world.master.seal(Path::new(LOG), "").await.unwrap();
        assert_eq!((seal.length, seal.may_shrink), (4, false));
    });
}
