//! The file of a role, read from the disk.

use std::path::Path;

use anyhow::Context;

pub use basalt_api::role_file::*;

/// Reads the file at `path`; `${NAME}` in it is the environment variable `NAME`.
///
/// # Errors
/// It cannot be read, is not what it should be (with the field), or is another role's.
pub fn read<S: Settings>(path: &Path) -> anyhow::Result<RoleFile<S>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    Ok(RoleFile::parse(&name, &text, |variable| std::env::var(variable).ok())?)
}
