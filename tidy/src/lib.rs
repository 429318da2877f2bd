//! Checks of the repository itself. `tests/repository.rs` runs them with `cargo test`.
//!
//! Each check is a function from a [`Repository`] to a list of [`Finding`]s, and has a test that
//! shows it finding something. What a check excludes is data: `allow.toml`, `seams.toml` and
//! `words.toml` beside this crate's manifest. Each entry states its reason, and an entry that is
//! no longer needed is a finding as well.
//!
//! No other crate depends on this one.

pub mod clippy_config;
pub mod data;
pub mod dependencies;
pub mod docs;
pub mod limits;
mod markdown;
pub mod references;
pub mod repository;
pub mod rust_file;
pub mod seams;
pub mod words;

pub use repository::Repository;

/// A place in the repository where a rule does not hold.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// The file, relative to the root of the repository.
    pub path: String,
    /// The line, counted from 1; 0 means the whole file.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

// === impl Finding ===

impl Finding {
    /// A finding at a line of a file.
    #[must_use]
    pub fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.path, self.message),
            line => write!(formatter, "{}:{line}: {}", self.path, self.message),
        }
    }
}
