//! From the path of a manifest to a cluster that can be run, with all problems in one message.

use std::path::Path;

use anyhow::{Context, bail};
use basalt_api::{Manifests, ValidatedCluster, validate};

/// Reads and checks the manifest at `path`.
pub(crate) fn read(path: &Path) -> anyhow::Result<ValidatedCluster> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
    let (cluster, tables) = Manifests::from_yaml(&file, &text)?.into_single_cluster(&file)?;
    match validate(&cluster, &tables) {
        Ok(cluster) => Ok(cluster),
        Err(problems) => {
            let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            bail!("{file} cannot be run as it is:{}", lines.concat())
        }
    }
}
