//! `basalt coordinator`: runs a member of the coordinator from the role's file.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use basalt_coordinator::{Config, CoordinatorTimers, Limits, Member};
use basalt_fs::LocalFileSystem;
use basalt_runtime::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::health;
use crate::role::{self, RoleContext};
use crate::role_config::{CoordinatorSettings, RoleFile};

/// How often to ask a member whether it serves, how long it may take to answer, and the maximum
/// size of the answer that is read.
const READINESS_PERIOD: Duration = Duration::from_millis(500);
const READINESS_ANSWER_MAX: Duration = Duration::from_secs(1);
const READINESS_BYTES_MAX: u64 = 64 << 10;

/// Runs a member until it is asked to stop.
pub(crate) async fn run(context: RoleContext<CoordinatorSettings>) -> anyhow::Result<()> {
    let RoleContext { file, seams, shutdown, .. } = context;
    let files = Arc::new(LocalFileSystem::open(&file.settings.data)?);
    let mut config = config(&file)?;
    let (ready, is_ready) = oneshot::channel();
    config.ready = Some(ready);
    let (network, stop) = (seams.network.clone(), shutdown.clone());
    let listens_everywhere = config.client_listen.ip().is_unspecified();
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), config.client_listen.port());
    tokio::spawn(async move {
        if is_ready.await.is_ok() {
            role::report_ready();
            // This is a pod. `basalt local` listens on a single address and needs no readiness.
            if listens_everywhere {
                stop.run_until_cancelled(watch_readiness(network, address)).await;
            }
        }
    });
    // Heartbeats and votes must not wait for clients. Only clients are served on the other threads.
    let liveness = seams.threads.liveness.clone();
    let running = async move { basalt_coordinator::run(config, seams, files, shutdown).await };
    Ok(liveness.spawn(running).await??)
}

/// Makes `/readyz` report whether this member serves. A disruption budget counts ready pods: a
/// member that listens but has not joined its quorum must not allow another one to be evicted.
async fn watch_readiness(network: Network, address: SocketAddr) {
    loop {
        let serves = timeout(READINESS_ANSWER_MAX, serves(&network, address)).await;
        health::set_ready(serves.is_ok_and(|serves| serves.unwrap_or(false)));
        sleep(READINESS_PERIOD).await;
    }
}

/// Whether the member at `address` reports that it serves.
async fn serves(network: &Network, address: SocketAddr) -> std::io::Result<bool> {
    let mut connection = network.connect(&address.to_string()).await?;
    connection.write_all(b"mntr").await?;
    let mut answer = String::new();
    connection.take(READINESS_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer.contains("zk_server_state"))
}

fn config(file: &RoleFile<CoordinatorSettings>) -> anyhow::Result<Config> {
    let settings = &file.settings;
    let derived = file.timers()?;
    let members = settings.members.iter().map(|member| {
        let addresses =
            Member { peer_address: member.peer.clone(), client_address: member.client.clone() };
        (member.id, addresses)
    });
    Ok(Config {
        cluster: format!("{} {}", file.cluster, file.cluster_uid),
        member_id: settings.member,
        members: members.collect::<BTreeMap<_, _>>(),
        peer_listen: settings.peer_listen,
        client_listen: settings.client_listen,
        // The root of the file system is `settings.data`.
        data: PathBuf::from("/"),
        timers: CoordinatorTimers {
            heartbeat_interval: derived.coordinator_heartbeat,
            election_timeout_min: derived.election_timeout_min,
            election_timeout_max: derived.election_timeout_max,
            session_timeout_min: derived.session_timeout_min,
            session_timeout_max: derived.session_timeout_max,
            isolation_grace: derived.isolation_grace,
            ..CoordinatorTimers::default()
        },
        limits: Limits::default(),
        ready: None,
    })
}
