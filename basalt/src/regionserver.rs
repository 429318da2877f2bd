//! `basalt regionserver`: runs a region server from the role's file.

use basalt_model::FeatureLevel;
use basalt_regionserver::{Config, RegionConfig};
use tokio::sync::oneshot;

use crate::health;
use crate::role::{self, RoleContext};
use crate::role_config::{RegionServerSettings, RoleFile};
use crate::storage;

/// The maximum number of calls that a region server handles at once.
const CALLS_MAX: usize = 16_384;

/// Runs the role until it is asked to stop.
pub(crate) async fn run(context: RoleContext<RegionServerSettings>) -> anyhow::Result<()> {
    let RoleContext { file, instance, seams, shutdown } = context;
    health::serve(&seams.network, file.settings.server.web_listen).await?;
    let timers = file.timers()?;
    let server = &file.settings.server;
    let Some(files) = storage::open(server, &timers, &seams, &shutdown).await? else {
        return Ok(());
    };
    let mut config = config(&file, instance)?;
    let (ready, is_ready) = oneshot::channel();
    config.ready = Some(ready);
    tokio::spawn(async move {
        if is_ready.await.is_ok() {
            role::report_ready();
        }
    });
    Ok(basalt_regionserver::run(config, seams, files, shutdown).await?)
}

fn config(file: &RoleFile<RegionServerSettings>, instance: String) -> anyhow::Result<Config> {
    let server = &file.settings.server;
    let limits = &file.settings.limits;
    let derived = file.timers()?;
    Ok(Config {
        host: server.host.clone(),
        rpc_listen: server.rpc_listen,
        peer_listen: server.peer_listen,
        coordinators: server.coordinators.clone(),
        nodes_parent: server.nodes_parent.clone(),
        instance,
        rack: server.rack.clone(),
        session_timeout: derived.session_timeout,
        lease: derived.serving_lease,
        renewal_interval: derived.lease_renewal,
        stop_timeout: derived.termination_grace,
        clock_bound: derived.clock_bound,
        region: RegionConfig {
            flush_bytes: limits.flush_bytes,
            memstore_bytes_max: limits.flush_bytes.saturating_mul(limits.block_multiplier),
            // A change of the coordinator's leader may delay a renewal.
            lease_patience: derived.session_timeout,
            compaction_files_min: usize::try_from(limits.compaction_files_min)?,
            ..RegionConfig::default()
        },
        wal_roll_bytes: limits.wal_roll_bytes,
        wal_files_max: usize::try_from(limits.wal_files_max)?,
        memstores_bytes_max: limits.memstores_bytes_max,
        block_cache_bytes: limits.block_cache_bytes,
        calls_max: CALLS_MAX,
        feature_level: FeatureLevel::NEWEST,
        ready: None,
    })
}
