//! Continuously compares the cluster's feature level with the levels that the registered servers
//! know. Once all servers run the newest release, the level must be raised.

use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::feature_level::OnRecord;
use basalt_cluster::{Nodes, pb};
use basalt_model::FeatureLevel;
use basalt_runtime::Seams;
use basalt_zk::Client;
use prost::Message as _;

use crate::invariants::Violation;
use crate::plan::NODES_PARENT;
use crate::simulate::connect;
use crate::workload::Workload;

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(20);
/// How long after the last fault the level may still be the old one.
const RAISED_WITHIN: Duration = Duration::from_secs(5);
/// The invariants.
const KNOWN: &str = "every registered server knows the cluster's feature level";
const RAISED: &str = "the feature level is raised once every server knows the next";

/// Checks until the level is the newest one and the faults are over.
pub(super) async fn run(
    seams: Seams,
    coordinators: Vec<String>,
    workload: Arc<Workload>,
) -> anyhow::Result<()> {
    workload.until_loading().await;
    let client = connect(&seams, &coordinators).await?;
    let nodes = Nodes::below(NODES_PARENT);
    loop {
        // While the coordinator does not answer, the level is unknown.
        let looked = tokio::time::timeout(RAISED_WITHIN, look(&client, &nodes)).await;
        let level = match looked {
            Ok(Ok(Look { level, too_old: None })) => {
                if level == FeatureLevel::NEWEST {
                    workload.note_newest_level();
                }
                level
            }
            Ok(Ok(Look { level, too_old: Some(server) })) => {
                let seen = format!("{server} is registered, and the cluster is at level {level}");
                workload.report(Violation::new(KNOWN, seen));
                break;
            }
            _ => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match workload.calm_for() {
            Some(_) if level == FeatureLevel::NEWEST => break,
            Some(calm) if calm > RAISED_WITHIN => {
                let seen = format!("it is {level}, {calm:?} after the last fault");
                workload.report(Violation::new(RAISED, seen));
                break;
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
    client.close().await;
    Ok(())
}

/// The result of a check.
struct Look {
    level: FeatureLevel,
    too_old: Option<String>,
}

async fn look(client: &Client, nodes: &Nodes) -> anyhow::Result<Look> {
    let level = OnRecord::read(client, nodes).await?.level;
    for parent in [nodes.servers(), nodes.masters()] {
        for server in client.get_children(&parent).await?.0 {
            let found = client.find_data(&format!("{parent}/{server}")).await?;
            let Some((data, _)) = found else { continue };
            if FeatureLevel(pb::ServerRecord::decode(data)?.feature_level) < level {
                return Ok(Look { level, too_old: Some(server) });
            }
        }
    }
    Ok(Look { level, too_old: None })
}
