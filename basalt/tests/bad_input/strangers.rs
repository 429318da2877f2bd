//! Connections of strangers at the ports of a region server and a master, next to clients that read
//! and write. No request of these clients fails, and memory stays within its limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use basalt::local::{PortName, ProcessState};
use basalt::role_config::RoleName;
use basalt_client::{Get, Put};
use basalt_runtime::{Connection, Seams};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::cluster::{Rig, row_name, value};
use crate::wire;

/// What a stranger sends before it becomes silent.
#[derive(Clone, Copy)]
enum Sends {
    Nothing,
    HalfAFrame,
    RandomBytes,
    HttpRequest,
    HugeLength,
}

const KINDS: [Sends; 5] =
    [Sends::Nothing, Sends::HalfAFrame, Sends::RandomBytes, Sends::HttpRequest, Sends::HugeLength];
/// The size of a frame that is half sent: more than the size up to which frames do not count as
/// held.
const FRAME_BYTES: u32 = 256 << 10;

impl Sends {
    fn bytes(self, is_grpc: bool) -> Vec<u8> {
        let opening = match is_grpc {
            true => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            false => wire::opening("ClientService"),
        };
        match self {
            Self::Nothing => Vec::new(),
            Self::RandomBytes => {
                let mut bytes = vec![0; 1_000];
                Seams::system().random.fill(&mut bytes);
                bytes
            }
            Self::HttpRequest => b"GET / HTTP/1.1\r\nHost: basalt\r\n\r\n".to_vec(),
            Self::HugeLength => [opening, vec![0xff; 4]].concat(),
            Self::HalfAFrame => {
                let half = vec![1; FRAME_BYTES as usize / 2];
                [opening, FRAME_BYTES.to_be_bytes().to_vec(), half].concat()
            }
        }
    }
}

/// Keeps `count` connections to `address` open, and reopens those that are closed.
async fn besiege(address: String, count: usize, is_grpc: bool, over: Arc<AtomicBool>) {
    let mut strangers = JoinSet::new();
    for number in 0..count {
        let (address, over) = (address.clone(), Arc::clone(&over));
        let sends = KINDS[number % KINDS.len()];
        strangers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                if let Ok(connection) = Seams::system().network.connect(&address).await {
                    bother(connection, &sends.bytes(is_grpc), &over).await;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    strangers.join_all().await;
}

async fn bother(mut connection: Connection, bytes: &[u8], over: &AtomicBool) {
    use tokio::io::AsyncReadExt;
    let _ = connection.write_all(bytes).await;
    let mut answer = [0; 1024];
    while !over.load(Ordering::Relaxed) {
        let read = connection.read(&mut answer);
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(Duration::from_millis(500), read).await {
            return;
        }
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Writes and reads until `over`. Adds the number of answered requests to `answered`.
async fn load(rig: &Rig, worker: u32, over: &AtomicBool, answered: &AtomicU64) {
    let table = rig.table("small");
    for row in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let row = worker * 1_000 + row % 1_000;
        let put = Put::new(row_name(row)).column(b"f", b"q", &value("small", row));
        table.put(&put).await.unwrap();
        table.get(&Get::new(row_name(row))).await.unwrap();
        answered.fetch_add(2, Ordering::Relaxed);
    }
}

async fn strangers_at_every_port(count: usize, lasts: Duration, growth_max: u64) {
    let rig = Rig::start(&["small"]).await;
    let (role, peer) = (RoleName::RegionServer, PortName::Peer);
    let plan = rig.cluster().plan();
    let ports: Vec<(String, bool)> = [
        (plan.addresses(role, PortName::Rpc), false),
        (plan.addresses(role, peer), true),
        (plan.addresses(RoleName::Master, PortName::Rpc), false),
        (plan.addresses(RoleName::Master, peer), true),
    ]
    .into_iter()
    .flat_map(|(addresses, is_grpc)| addresses.into_iter().map(move |one| (one, is_grpc)))
    .collect();
    assert_eq!(ports.len(), 4);
    assert!(ports.iter().all(|(address, _)| address.parse::<SocketAddr>().is_ok()));
    let pids = |rig: &Rig| -> Vec<(String, u32)> {
        let states = rig.cluster().supervisor().states().into_iter();
        let ready = |(name, state)| match state {
            ProcessState::Ready { pid } => (name, pid),
            other => panic!("{name} is {other:?}"),
        };
        states.map(ready).collect()
    };
    rig.write("small", 0..10).await;
    let before = pids(&rig);
    let resident: Vec<_> = before.iter().map(|(_, pid)| resident_bytes(*pid)).collect();
    let (over, answered) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let mut sieges = JoinSet::new();
    for (address, is_grpc) in ports {
        sieges.spawn(besiege(address, count, is_grpc, Arc::clone(&over)));
    }
    let mut growth = vec![0; before.len()];
    let watch = async {
        let ends_at = tokio::time::Instant::now() + lasts;
        while tokio::time::Instant::now() < ends_at {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for ((most, begun), (_, pid)) in growth.iter_mut().zip(&resident).zip(&before) {
                *most = u64::max(*most, resident_bytes(*pid).saturating_sub(*begun));
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(watch, load(&rig, 1, &over, &answered), load(&rig, 2, &over, &answered));
    assert_eq!(pids(&rig), before, "a process was started again");
    sieges.join_all().await;
    for ((name, _), bytes) in before.iter().zip(&growth) {
        println!("{name}: {} MiB more at most", bytes >> 20);
        assert!(*bytes <= growth_max, "{name} grew by {bytes} bytes");
    }
    let answered = answered.into_inner();
    println!("{answered} requests answered next to {count} strangers at each of 4 ports");
    assert!(answered > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cost_clients_no_request_and_servers_little_memory() {
    Box::pin(strangers_at_every_port(200, Duration::from_secs(10), 256 << 20)).await;
}

/// `cargo test -p basalt --test bad_input strangers -- --ignored --nocapture` prints the figures.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "2,000 connections a port, for a minute"]
async fn two_thousand_strangers_a_port_cost_clients_no_request() {
    Box::pin(strangers_at_every_port(2_000, Duration::from_secs(60), 1 << 30)).await;
}
