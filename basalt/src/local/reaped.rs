//! Telling the masters which region server's process was reaped. It is proof of death, and comes
//! even where another process answers at the same port before the end of the stream is noticed.

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

/// A hook that tells each of `masters`, given as `host:port` of their gRPC services. Those that
/// are not in charge refuse, which is no error: the one that takes over looks for itself.
pub(super) fn tell_masters(network: Network, masters: Vec<String>) -> DeathHook {
    Arc::new(move |death: Death| -> BoxFuture<'static, ()> {
        if death.role != RoleName::RegionServer {
            return std::future::ready(()).boxed();
        }
        let (network, masters) = (network.clone(), masters.clone());
        async move {
            let told = masters.iter().map(|master| tell(&network, master, &death));
            join_all(told).await;
        }
        .boxed()
    })
}

async fn tell(network: &Network, master: &str, death: &Death) {
    let request = ProcessEndedRequest { instance: death.instance.clone() };
    let told = async {
        let channel = grpc::channel(network, master, CONNECT_TIMEOUT)
            .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        MasterPeerClient::new(channel).process_ended(request).await
    };
    if let Err(status) = told.await {
        tracing::debug!(master, process = death.process, %status, "a death was not reported");
    }
}
