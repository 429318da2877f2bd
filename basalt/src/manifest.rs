//! From the path of a manifest to a cluster that can be run, with all problems in one message.

use std::path::Path;

use anyhow::{Context, bail};
use basalt_api::{BasaltCluster, BasaltTable, Manifests, ValidatedCluster, validate};

/// What a manifest declares, before it is checked.
pub(crate) struct Declared {
    /// How the manifest is called in messages.
    pub(crate) file: String,
    pub(crate) cluster: BasaltCluster,
    pub(crate) tables: Vec<BasaltTable>,
}

/// The manifest where none is named, and its path in the project.
const EXAMPLE: &str = include_str!("../../examples/cluster.yaml");
const EXAMPLE_FILE: &str = "examples/cluster.yaml";

/// Reads and checks the manifest at `path`.
pub(crate) fn read(path: &Path) -> anyhow::Result<ValidatedCluster> {
    Declared::read_or_example(Some(path))?.check()
}

// === impl Declared ===

impl Declared {
    /// Reads the manifest at `path`; the example, if none is named.
    pub(crate) fn read_or_example(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Self::parse(EXAMPLE_FILE.to_owned(), EXAMPLE) };
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
        Self::parse(file, &text)
    }

    fn parse(file: String, text: &str) -> anyhow::Result<Self> {
        let (cluster, tables) = Manifests::from_yaml(&file, text)?.into_single_cluster(&file)?;
        Ok(Self { file, cluster, tables })
    }

    /// Checks it.
    pub(crate) fn check(&self) -> anyhow::Result<ValidatedCluster> {
        match validate(&self.cluster, &self.tables) {
            Ok(cluster) => Ok(cluster),
            Err(problems) => {
                let lines: Vec<_> =
                    problems.iter().map(|problem| format!("\n  {problem}")).collect();
                bail!("{} cannot be run as it is:{}", self.file, lines.concat())
            }
        }
    }
}
