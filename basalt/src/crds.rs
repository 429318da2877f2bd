//! `basalt crds`: the custom resource definitions.

use std::path::PathBuf;

use anyhow::Context;
use basalt_api::crds;

use crate::output::print_result;

/// The arguments of `basalt crds`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write one file for each definition into this folder instead of printing them
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// Prints or writes the definitions.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let files = crds::files()?;
    let Some(folder) = &arguments.write else {
        let documents: Vec<_> = files.into_iter().map(|file| file.yaml).collect();
        return print_result(&documents.join("---\n"));
    };
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    for file in files {
        let path = folder.join(file.name);
        std::fs::write(&path, file.yaml)
            .with_context(|| format!("cannot write {}", path.display()))?;
        print_line!("{}", path.display());
    }
    Ok(())
}
