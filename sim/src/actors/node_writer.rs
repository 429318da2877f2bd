//! A client of the coordinator that holds no lease and writes a lot of data. While disks are full,
//! it must not use up the space that leases need. Once there is space, its writes must be accepted
//! again.

use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::{Random, Seams};
use basalt_zk::proto::{CreateMode, ErrorCode};
use basalt_zk::{Client, Result};
use bytes::Bytes;

use crate::invariants::Violation;
use crate::simulate::connect;
use crate::workload::Workload;

const PATH: &str = "/node-writer";
/// The size of each write, and the pause after it.
const DATA_BYTES: usize = 128 << 10;
const PAUSE_MS: std::ops::Range<u64> = 5..50;
/// How long after the faults a write may be rejected: the disk is checked once a second.
const REFUSED_MAX: Duration = Duration::from_secs(5);
/// The invariant.
const TAKEN_AGAIN: &str = "once its disks have room, the coordinator takes all writes";

/// Writes until the load is over, then until a write is accepted.
pub(super) async fn run(
    seams: Seams,
    coordinators: Vec<String>,
    workload: Arc<Workload>,
) -> anyhow::Result<()> {
    workload.until_loading().await;
    let client = connect(&seams, &coordinators).await?;
    let random = Random::from_seed(seams.random.next_u64());
    loop {
        let written = write(&client).await;
        let calm = workload.calm_for();
        match (written, calm) {
            (Ok(()), Some(_)) => break,
            (Err(error), Some(calm)) if calm > REFUSED_MAX => {
                let seen = format!("{error}, {calm:?} after the last fault");
                workload.report(Violation::new(TAKEN_AGAIN, seen));
                break;
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(random.in_range(PAUSE_MS))).await;
    }
    client.close().await;
    Ok(())
}

async fn write(client: &Client) -> Result<()> {
    let data = Bytes::from(vec![7; DATA_BYTES]);
    match client.set_data(PATH, data.clone(), None).await {
        Err(error) if error.code() == Some(ErrorCode::NoNode) => {
            client.create(PATH, data, CreateMode::Persistent).await.map(drop)
        }
        written => written.map(drop),
    }
}
