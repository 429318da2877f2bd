//! Tests of which orders a region server accepts.

use crate::running::Running;
use basalt_cluster::pb;
use basalt_model::ServerName;
use bytes::Bytes;
use tonic::Code;

async fn close(running: &mut Running, server: &ServerName, epoch: u64) -> Result<String, Code> {
    let region = pb::CloseRegion { encoded_name: "0".repeat(32), epoch: 1, ..Default::default() };
    let request = pb::CloseRegionsRequest {
        master_epoch: epoch,
        regions: vec![region],
        server_name: server.to_string(),
    };
    let reply = running.orders.close_regions(request).await.map_err(|status| status.code())?;
    Ok(reply.into_inner().outcomes.remove(0).failure)
}

/// A server was killed and started again at the same address. A master that has not noticed orders
/// the dead server to close a region. If the new process confirmed that (it holds no such region),
/// the dead server's log would never be replayed for the next owner.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_close_for_an_earlier_process_at_the_same_address_is_refused() {
    let mut running = Running::start().await;
    let epoch = running.master_epoch;
    let mut earlier = running.name.clone();
    earlier.start_code -= 1;
    assert_eq!(close(&mut running, &earlier, epoch).await, Err(Code::NotFound));
    let own = running.name.clone();
    assert_eq!(close(&mut running, &own, epoch).await, Ok(String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_a_master_that_was_passed_over_is_refused() {
    let mut running = Running::start().await;
    let (own, epoch) = (running.name.clone(), running.master_epoch);
    // As the next master does: the master epoch is the version of its node.
    let path = running.nodes.master_epoch();
    running.client.set_data(&path, Bytes::from_static(b"next"), None).await.unwrap();
    assert_eq!(close(&mut running, &own, epoch + 1).await, Ok(String::new()));
    assert_eq!(close(&mut running, &own, epoch).await, Err(Code::FailedPrecondition));
}
