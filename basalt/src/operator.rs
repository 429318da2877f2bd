//! `basalt operator`: reconciles the resources of a Kubernetes cluster.

use std::net::SocketAddr;

use basalt_operator::Options;
use basalt_runtime::{Seams, Shutdown, init_telemetry};

use crate::{health, role};

/// The arguments of `basalt operator`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The operator's own namespace, which contains its Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// The holder of the Lease: the name of the pod
    #[arg(long, env = "POD_NAME", default_value = "basalt-operator")]
    identity: String,
    /// Watch this namespace only
    #[arg(long, value_name = "NAMESPACE")]
    watch_namespace: Option<String>,
    /// The image tag of clusters that name none
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    default_tag: String,
    /// Answer /livez and /readyz at this address
    #[arg(long, value_name = "ADDRESS")]
    health: Option<SocketAddr>,
    /// The log level, or a filter
    #[arg(long, default_value = "info")]
    log_level: String,
}

/// Runs the operator until SIGTERM or Ctrl-C.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    init_telemetry(&arguments.log_level).map_err(anyhow::Error::msg)?;
    let options = Options {
        namespace: arguments.namespace.clone(),
        identity: arguments.identity.clone(),
        watch_namespace: arguments.watch_namespace.clone().filter(|name| !name.is_empty()),
        default_tag: arguments.default_tag.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        role::stop_on_signals(&shutdown)?;
        let seams = Seams::system();
        health::record_metrics()?;
        if let Some(address) = arguments.health {
            health::serve(&seams.network, address).await?;
        }
        Ok(basalt_operator::run(options, seams, shutdown, health::now_ready).await?)
    })
}
