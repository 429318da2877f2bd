//! `basalt accept-loss`: an operator accepts the loss of a dead server's log data, so that its
//! regions open without that data.

use std::time::Duration;

use anyhow::{Context, bail};
use basalt_cluster::pb;
use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_runtime::{Seams, grpc};
use tonic::Code;

/// The arguments of `basalt accept-loss`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The gRPC addresses of the masters; the active one is found among them
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    masters: Vec<String>,
    /// The dead region server, as the master's log names it
    #[arg(long, value_name = "HOST,PORT,STARTCODE")]
    server: String,
    /// A lost log file. All lost files must be named; without this option they are printed
    #[arg(long = "log", value_name = "FILE")]
    logs: Vec<String>,
    /// Who accepts the loss; this is recorded
    #[arg(long, value_name = "WHO", required = true)]
    by: String,
}

/// The timeouts of the connection and of the whole call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends the request to the active master.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept(arguments))
}

async fn accept(arguments: &Arguments) -> anyhow::Result<()> {
    let seams = Seams::system();
    let mut refusals = Vec::new();
    for master in &arguments.masters {
        let channel = grpc::channel(&seams.network, master, CONNECT_TIMEOUT)
            .with_context(|| format!("{master} is not a valid address"))?;
        let request = pb::AcceptLossRequest {
            server_name: arguments.server.clone(),
            logs: arguments.logs.clone(),
            by: arguments.by.clone(),
        };
        let mut client = MasterPeerClient::new(channel);
        match tokio::time::timeout(CALL_TIMEOUT, client.accept_loss(request)).await {
            Ok(Ok(reply)) => {
                reply.into_inner().lost.iter().for_each(|lost| print_line!("given up: {lost}"));
                return Ok(());
            }
            Ok(Err(status)) if status.code() == Code::Unavailable => {
                refusals.push(format!("{master}: {}", status.message()));
            }
            Ok(Err(status)) => bail!("{}", status.message()),
            Err(_) => refusals.push(format!("{master}: no answer within {CALL_TIMEOUT:?}")),
        }
    }
    bail!("no active master answered: {}", refusals.join("; "))
}
