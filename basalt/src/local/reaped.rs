//! Reports to the masters which region server's process was reaped. That is a proof of death. It
//! also works if another process answers at the same port before the end of the stream is noticed.

use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb::ProcessEndedRequest;
use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_runtime::{Network, grpc};
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};

use super::keeper::{Death, DeathHook};
use crate::role_config::RoleName;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A hook that reports each death to each of `masters`, given as the `host:port` of their gRPC
/// services. Standby masters reject the report. That is no error: a master that becomes active
/// checks the servers itself.
pub(super) fn notify_masters(network: Network, masters: Vec<String>) -> DeathHook {
    Arc::new(move |death: Death| -> BoxFuture<'static, ()> {
        if death.role != RoleName::RegionServer {
            return std::future::ready(()).boxed();
        }
        let (network, masters) = (network.clone(), masters.clone());
        async move {
            let notified = masters.iter().map(|master| notify(&network, master, &death));
            join_all(notified).await;
        }
        .boxed()
    })
}

async fn notify(network: &Network, master: &str, death: &Death) {
    let request = ProcessEndedRequest { instance: death.instance.clone() };
    let notified = async {
        let channel = grpc::channel(network, master, CONNECT_TIMEOUT)
            .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        MasterPeerClient::new(channel).process_ended(request).await
    };
    if let Err(status) = notified.await {
        tracing::debug!(master, process = death.process, %status, "a death was not reported");
    }
}
