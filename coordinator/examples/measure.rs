//! Benchmarks three members on this machine: the latency of writes, and the time without a
//! committed write after the leader is killed. Run it with
//! `cargo run --release -p basalt-coordinator --example measure`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use basalt_zk::Client;
use basalt_zk::proto::CreateMode;
use bytes::Bytes;
use support::Cluster;
use tokio::time::Instant;

const RUN: Duration = Duration::from_secs(5);
const KILLS: usize = 9;
const VALUE_BYTES: usize = 100;

#[tokio::main]
async fn main() {
    let mut cluster = Cluster::start(3);
    cluster.leader().await;
    for clients in [1, 64] {
        write_for_a_while(&cluster, clients).await;
    }
    let mut gaps = Vec::new();
    for _ in 0..KILLS {
        gaps.push(kill_leader(&mut cluster).await);
    }
    gaps.sort();
    println!("leader killed {KILLS} times: next committed write after (sorted) {gaps:?}");
}

/// Each client writes to its own node, one write after the other.
async fn write_for_a_while(cluster: &Cluster, clients: usize) {
    let mut tasks = Vec::new();
    for number in 0..clients {
        let client = cluster.connect().await;
        tasks.push(tokio::spawn(async move {
            let path = node(&client, &format!("/c{clients}-{number}")).await;
            let start = Instant::now();
            let mut took = Vec::new();
            while start.elapsed() < RUN {
                let sent = Instant::now();
                write(&client, &path).await.unwrap();
                took.push(sent.elapsed());
            }
            took
        }));
    }
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort();
    let quantile = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{clients} clients: {:.0} writes/s, p50 {:?}, p99 {:?}, max {:?}",
        took.len() as f64 / RUN.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    );
}

/// Kills the leader while a client of another member writes. Returns the time from the kill until
/// the first write that was sent after it is committed.
async fn kill_leader(cluster: &mut Cluster) -> Duration {
    let leader = cluster.leader().await;
    let client = cluster.connect_to(leader % 3 + 1).await;
    let path = node(&client, "/kill").await;
    write(&client, &path).await.unwrap();
    let killed = Instant::now();
    cluster.kill(leader);
    write(&client, &path).await.unwrap();
    let gap = killed.elapsed();
    cluster.start_member(leader);
    cluster.leader().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    gap
}

async fn node(client: &Client, path: &str) -> String {
    if client.exists(path).await.unwrap().is_none() {
        client.create(path, Bytes::new(), CreateMode::Persistent).await.unwrap();
    }
    path.to_owned()
}

async fn write(client: &Client, path: &str) -> Result<(), basalt_zk::Error> {
    let value = Bytes::from_static(&[7; VALUE_BYTES]);
    client.set_data(path, value, None).await.map(|_| ())
}
