//! Region servers whose clocks are off.

use std::sync::atomic::Ordering;

use super::*;

const DAY_MS: i64 = 86_400_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_off_gets_no_regions() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.add_server_ahead(DAY_MS).await;
    cluster.finished(cluster.create_table("t", 6, 1).await).await;
    cluster.all_open(6).await;
    let [right, wrong] = [0, 1].map(|index| cluster.servers[index].name.clone());
    // Longer than the balancer would take to move regions to it.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(cluster.open_regions(), [(right, 6), (wrong.clone(), 0)].into());

    cluster.servers[1].ahead_ms.store(0, Ordering::Relaxed);
    until("a server whose clock is right again gets regions", async || {
        cluster.open_regions()[&wrong] == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_set_loses_its_regions_and_no_log_is_recovered() {
    let cluster = Cluster::start(1, 3).await;
    cluster.finished(cluster.create_table("t", 6, 1).await).await;
    cluster.all_open(6).await;
    let wrong = cluster.servers[2].name.clone();
    cluster.servers[2].ahead_ms.store(-DAY_MS, Ordering::Relaxed);
    until("its regions have gone to the others", async || {
        let open = cluster.open_regions();
        open[&wrong] == 0 && open.values().sum::<usize>() == 6
    })
    .await;
    assert!(cluster.catalog.regions().values().all(|region| region.record.unflushed.is_empty()));
}
