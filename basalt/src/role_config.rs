//! Reads the file of a role from the disk.

use std::path::Path;

use anyhow::Context;

pub use basalt_api::role_file::*;

/// Reads the file at `path`. `${NAME}` in it is replaced by the environment variable `NAME`.
///
/// # Errors
/// The file cannot be read, is invalid (the error names the field), or is for another role.
pub fn read<S: Settings>(path: &Path) -> anyhow::Result<RoleFile<S>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    Ok(RoleFile::parse(&name, &text, |variable| std::env::var(variable).ok())?)
}
