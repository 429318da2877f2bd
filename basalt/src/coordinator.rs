//! `basalt coordinator`: from the role's file to a member of the coordinator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use basalt_coordinator::{Config, Limits, Member, Timers};
use basalt_fs::LocalFileSystem;
use tokio::sync::oneshot;

use crate::role::{self, RoleContext};
use crate::role_config::{CoordinatorSettings, RoleFile};

/// Runs a member until it is told to stop.
pub(crate) async fn run(context: RoleContext<CoordinatorSettings>) -> anyhow::Result<()> {
    let RoleContext { file, seams, shutdown, .. } = context;
    let files = Arc::new(LocalFileSystem::open(&file.settings.data)?);
    let mut config = config(&file)?;
    let (ready, is_ready) = oneshot::channel();
    config.ready = Some(ready);
    tokio::spawn(async move {
        if is_ready.await.is_ok() {
            role::tell_ready();
        }
    });
    Ok(basalt_coordinator::run(config, seams, files, shutdown).await?)
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
        // The file system begins at `settings.data`.
        data: PathBuf::from("/"),
        timers: Timers {
            heartbeat_interval: derived.coordinator_heartbeat,
            election_timeout_min: derived.election_timeout_min,
            election_timeout_max: derived.election_timeout_max,
            session_timeout_min: derived.session_timeout_min,
            session_timeout_max: derived.session_timeout_max,
            isolation_grace: derived.isolation_grace,
            ..Timers::default()
        },
        limits: Limits::default(),
        ready: None,
    })
}
