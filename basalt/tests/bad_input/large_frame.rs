//! One request of the maximum size, sent to a server with a single serving thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use basalt::local::{PortName, ProcessState};
use basalt::role_config::RoleName;
use basalt_runtime::Seams;
use tokio::io::AsyncWriteExt;

use crate::cluster::Rig;
use crate::wire;

/// The size of the request's cells.
const BLOCK_BYTES: usize = 200 << 20;

/// The header of the frame. Its `RequestHeader` has the call id, the method, the flag that a
/// message follows, and the number of bytes of the cells after the message.
fn frame_head(block_bytes: usize) -> Vec<u8> {
    let mut block_meta = vec![0x08];
    wire::put_varint(block_bytes as u64, &mut block_meta);
    let mut header = vec![0x08, 1, 0x1a, 5];
    header.extend_from_slice(b"Multi");
    header.extend_from_slice(&[0x20, 1, 0x2a, block_meta.len() as u8]);
    header.extend_from_slice(&block_meta);
    let mut head = Vec::new();
    wire::put_varint(header.len() as u64, &mut head);
    head.extend_from_slice(&header);
    // A message without fields.
    head.push(0);
    head
}

/// A cell with one byte in each part, preceded by its length.
fn cell() -> Vec<u8> {
    let mut cell = Vec::new();
    let (key_bytes, value_bytes) = (2 + 1 + 1 + 1 + 1 + 8 + 1_u32, 1_u32);
    cell.extend_from_slice(&(8 + key_bytes + value_bytes).to_be_bytes());
    cell.extend_from_slice(&key_bytes.to_be_bytes());
    cell.extend_from_slice(&value_bytes.to_be_bytes());
    cell.extend_from_slice(&1_u16.to_be_bytes());
    cell.extend_from_slice(b"r\x01fq");
    cell.extend_from_slice(&1_u64.to_be_bytes());
    cell.extend_from_slice(&[4, b'v']);
    cell
}

/// Threads that never wait: the load of a machine that does other work as well.
struct BusyMachine(Arc<AtomicBool>);

/// As much as two compilers.
const BUSY_THREADS: usize = 4;
/// How long the answer may take: unoptimised code decodes the request for a minute on a busy
/// machine.
const ANSWER_PATIENCE: Duration = Duration::from_secs(600);

impl BusyMachine {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..BUSY_THREADS {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Self(over)
    }
}

impl Drop for BusyMachine {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn send_large_request(address: &str) {
    let mut stream = Seams::system().network.connect(address).await.unwrap();
    stream.write_all(&wire::opening("ClientService")).await.unwrap();
    let cell = cell();
    let cells = BLOCK_BYTES / cell.len();
    let head = frame_head(cells * cell.len());
    let length = head.len() + cells * cell.len();
    stream.write_all(&u32::try_from(length).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(&head).await.unwrap();
    let many = cell.repeat(10_000);
    let mut left = cells * cell.len();
    while left > 0 {
        let part = left.min(many.len());
        stream.write_all(&many[..part]).await.unwrap();
        left -= part;
    }
    wire::read_answer(&mut stream, ANSWER_PATIENCE).await;
}

/// Failed before leases, sessions and heartbeats had their own threads: the session expired. Failed
/// with those threads, before large requests were handled in long steps: the server found its only
/// thread stuck.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_request_costs_a_server_with_one_thread_no_session() {
    let rig = Rig::start_patient(&["small"]).await;
    rig.give_one_thread("regionserver-0").await;
    rig.write("small", 0..10).await;
    let busy = BusyMachine::start();
    let servers = rig.cluster().plan().addresses(RoleName::RegionServer, PortName::Rpc);
    let pid = |rig: &Rig| match rig.cluster().supervisor().state("regionserver-0").unwrap() {
        ProcessState::Ready { pid } => pid,
        other => panic!("the region server is {other:?}"),
    };
    let before = pid(&rig);
    send_large_request(&servers[0]).await;
    drop(busy);
    // The server still has its lease, in the same session: a process ends with its session.
    rig.write("small", 10..20).await;
    rig.check("small", 0..20).await;
    assert_eq!(pid(&rig), before, "it was started again");
}
