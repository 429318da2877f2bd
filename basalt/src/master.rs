//! `basalt master`: runs a master from the role's file.

use std::time::Duration;

use basalt_api::Problem;
use basalt_master::{Config, DeclaredTable, LeaseGuard, MasterTimers};
use basalt_model::FeatureLevel;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::health;
use crate::master_lease;
use crate::role::{self, RoleContext};
use crate::role_config::{MasterSettings, RoleFile};
use crate::storage;

/// How long the end of the process waits until the Lease is released.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the role until it is asked to stop. The master steps down first and then releases the
/// Lease.
pub(crate) async fn run(context: RoleContext<MasterSettings>) -> anyhow::Result<()> {
    let RoleContext { file, instance, seams, shutdown } = context;
    health::serve(&seams.network, file.settings.server.web_listen).await?;
    let timers = file.timers()?;
    let server = &file.settings.server;
    let Some(files) = storage::open(server, &timers, &seams, &shutdown).await? else {
        return Ok(());
    };
    let keeping = {
        let (lease, process) = (file.settings.lease.clone(), file.process.clone());
        let (timers, seams) = (timers.clone(), seams.clone());
        async move { master_lease::keep(lease.as_ref(), &process, &timers, &seams).await }
    };
    // Requests must not delay a renewal of the Lease either.
    let (guard, keeping) = seams.threads.liveness.spawn(keeping).await?;
    let mut config = config(&file, instance, guard)?;
    config.storage_deviations =
        storage::watch_deviations(&file.settings.server.storage, &timers, &seams)?;
    let (ready, is_ready) = oneshot::channel();
    config.ready = Some(ready);
    tokio::spawn(async move {
        if is_ready.await.is_ok() {
            role::report_ready();
        }
    });
    let ended = basalt_master::run(config, seams, files, shutdown).await;
    if let Some(keeping) = keeping {
        // If it takes longer, the Lease expires by itself.
        let _ = timeout(GIVE_BACK_TIMEOUT, keeping).await;
    }
    Ok(ended?)
}

fn config(
    file: &RoleFile<MasterSettings>,
    instance: String,
    guard: LeaseGuard,
) -> anyhow::Result<Config> {
    let server = &file.settings.server;
    let derived = file.timers()?;
    let tables =
        file.settings.validated_tables().map_err(problems)?.into_iter().map(|table| {
            DeclaredTable { descriptor: table.descriptor, split_keys: table.split_keys }
        });
    Ok(Config {
        cluster_name: file.cluster.clone(),
        rpc_listen: server.rpc_listen,
        advertised_host: server.host.clone(),
        peer_listen: server.peer_listen,
        info_port: server.web_listen.port(),
        coordinators: server.coordinators.clone(),
        nodes_parent: server.nodes_parent.clone(),
        client_parent: server.client_parent.clone(),
        timers: MasterTimers {
            session_timeout: derived.session_timeout,
            lease: derived.serving_lease,
            drift_margin: derived.drift_margin,
            clock_bound: derived.clock_bound,
            connect_timeout: derived.rpc_connect_timeout,
            ..MasterTimers::default()
        },
        declared_tables: tables.collect(),
        rack: server.rack.clone(),
        instance,
        guard,
        storage_deviations: None,
        feature_level: FeatureLevel::NEWEST,
        ready: None,
    })
}

fn problems(problems: Vec<Problem>) -> anyhow::Error {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", lines.join("; "))
}
