//! Reads a manifest and checks that its cluster can be run. Reports all problems in one message.

use std::path::Path;

use anyhow::{Context, bail};
use basalt_api::{BasaltCluster, BasaltTable, Manifests, ValidatedCluster, validate};

/// The contents of a manifest before validation.
pub(crate) struct Declared {
    /// The name of the manifest in messages.
    pub(crate) file: String,
    pub(crate) cluster: BasaltCluster,
    pub(crate) tables: Vec<BasaltTable>,
}

/// The manifest that is used if none is named, and its path in the project.
const EXAMPLE: &str = include_str!("../../examples/cluster.yaml");
const EXAMPLE_FILE: &str = "examples/cluster.yaml";

/// Reads and checks the manifest at `path`.
pub(crate) fn read(path: &Path) -> anyhow::Result<ValidatedCluster> {
    Declared::read_or_example(Some(path))?.check()
}

// === impl Declared ===

impl Declared {
    /// Reads the manifest at `path`, or the example if `path` is `None`.
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

    /// Validates the manifest.
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
