//! Election by an ephemeral node: the master that creates it is active.
//!
//! The node's record names the epoch that its creator raised in the same multi. When a standby
//! master deletes a dead master's node, it checks the epoch's version in the same multi. The delete
//! can therefore never hit the node of a newer master.

use std::time::Duration;

use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_cluster::{Nodes, pb, records};
use basalt_model::{MasterEpoch, ServerName};
use basalt_runtime::{Network, grpc};
use basalt_zk::proto::{CreateMode, ErrorCode};
use basalt_zk::{Client, Op};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use crate::bootstrap;
use crate::election::lease_guard::{ActiveMaster, LeaseGuard};
use crate::epoch_guarded_store;
use crate::error::Error;
use crate::liveness::{Verdict, listen};

/// The pause after the coordinator did not answer, or another master was faster.
const PAUSE: Duration = Duration::from_millis(50);

/// A master that campaigns.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) server: ServerName,
    pub(crate) peer_address: String,
    pub(crate) info_port: u16,
    pub(crate) client: Client,
    pub(crate) nodes: Nodes,
    pub(crate) network: Network,
    pub(crate) connect_timeout: Duration,
    /// Decides when this master may campaign.
    pub(crate) guard: LeaseGuard,
}

/// What happened while another master was active.
enum Change {
    /// The active master's node changed.
    Node,
    /// The active master seems to have died.
    Hint(&'static str),
}

/// Waits until this master is active. Returns the epoch that it has raised.
///
/// # Errors
/// The session is over, or the coordinator holds an invalid record.
pub(crate) async fn campaign(candidate: &Candidate) -> Result<MasterEpoch, Error> {
    let mut last_holder = String::new();
    loop {
        match campaign_once(candidate, &mut last_holder).await {
            Ok(Some(epoch)) => {
                candidate.guard.report(ActiveMaster::This);
                return Ok(epoch);
            }
            Ok(None) => {}
            Err(Error::Coordinator(error)) if !error.is_session_over() => {
                candidate.guard.report(ActiveMaster::Unknown);
                tracing::warn!(%error, "the election failed; retrying");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Tries once to become active, when the active master is gone. `last_holder` is the identity under
/// which the last active master held the Lease.
async fn campaign_once(
    candidate: &Candidate,
    last_holder: &mut String,
) -> Result<Option<MasterEpoch>, Error> {
    let path = candidate.nodes.master();
    let (data, stat, mut changed) = match candidate.client.get_data_watch(&path).await {
        Ok(found) => found,
        Err(error) if error.code() == Some(ErrorCode::NoNode) => {
            return campaign_unopposed(candidate, last_holder).await;
        }
        Err(error) => return Err(error.into()),
    };
    let record: pb::MasterRecord = records::decode("master", data)?;
    if stat.ephemeral_owner == candidate.client.session_id().0 {
        // An earlier attempt succeeded, although its answer was lost.
        return Ok(Some(MasterEpoch(record.epoch)));
    }
    candidate.guard.report(ActiveMaster::Other);
    last_holder.clone_from(&record.lease_holder);
    tracing::info!(active = record.server_name, epoch = record.epoch, "standing by");
    let change = tokio::select! {
        biased;
        _ = &mut changed => Change::Node,
        cause = hint(candidate, &record) => Change::Hint(cause),
    };
    match change {
        Change::Node => Ok(None),
        Change::Hint(cause) => {
            tracing::warn!(
                active = record.server_name,
                cause,
                "the active master seems to have died"
            );
            candidate
                .guard
                .report(ActiveMaster::Absent { last_holder: record.lease_holder.clone() });
            tokio::select! {
                biased;
                // The other master's session is over, or another standby master was faster.
                _ = changed => Ok(None),
                () = candidate.guard.may_campaign() => {
                    become_active(candidate, MasterEpoch(record.epoch), true).await
                }
            }
        }
    }
}

/// Becomes active while there is no active master, once the guard allows it.
async fn campaign_unopposed(
    candidate: &Candidate,
    last_holder: &str,
) -> Result<Option<MasterEpoch>, Error> {
    candidate.guard.report(ActiveMaster::Absent { last_holder: last_holder.to_owned() });
    let (taken, changed) = candidate.client.exists_watch(&candidate.nodes.master()).await?;
    if taken.is_some() {
        return Ok(None);
    }
    tokio::select! {
        biased;
        _ = changed => return Ok(None),
        () = candidate.guard.may_campaign() => {}
    }
    let epoch = bootstrap::read_epoch(&candidate.client, &candidate.nodes).await?;
    become_active(candidate, epoch, false).await
}

/// Becomes active after the master of `epoch`, and raises the epoch in the same multi. Returns
/// `None` if another master became active first.
async fn become_active(
    candidate: &Candidate,
    epoch: MasterEpoch,
    is_taken: bool,
) -> Result<Option<MasterEpoch>, Error> {
    let nodes = &candidate.nodes;
    let record = pb::MasterRecord {
        server_name: candidate.server.to_string(),
        peer_address: candidate.peer_address.clone(),
        epoch: epoch.next().0,
        info_port: candidate.info_port.into(),
        lease_holder: candidate.guard.identity().to_owned(),
    };
    let name = Bytes::from(candidate.server.to_string());
    let raise = epoch_guarded_store::replace(nodes.master_epoch(), name, epoch.0 as i32);
    let node = Op::Create {
        path: nodes.master(),
        data: record.encode_to_vec().into(),
        mode: CreateMode::Ephemeral,
    };
    let mut writes = vec![raise];
    if is_taken {
        writes.push(epoch_guarded_store::delete(nodes.master()));
    }
    writes.push(node);
    match candidate.client.multi(writes).await {
        Ok(_) => Ok(Some(epoch.next())),
        Err(basalt_zk::Error::Multi { code, .. }) => {
            tracing::debug!(%code, "did not become active");
            tokio::time::sleep(PAUSE).await;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Keeps a stream open to the active master, and reopens it until that master seems to have died.
async fn hint(candidate: &Candidate, active: &pb::MasterRecord) -> &'static str {
    let Ok(server) = active.server_name.parse::<ServerName>() else {
        return std::future::pending().await;
    };
    let address = active.peer_address.as_str();
    loop {
        let request = pb::LiveRequest { master_epoch: active.epoch };
        let open = async {
            let channel = grpc::channel(&candidate.network, address, candidate.connect_timeout)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            MasterPeerClient::new(channel).live(request).await
        };
        let verdict =
            listen(&candidate.network, address, &server, candidate.connect_timeout, open, |_| {})
                .await;
        match verdict {
            Verdict::Gone(cause) => return cause,
            Verdict::Silent => tokio::time::sleep(PAUSE).await,
        }
    }
}
