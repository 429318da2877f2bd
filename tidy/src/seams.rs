//! Production code reaches the machine only through the seams.
//!
//! `clippy.toml` forbids methods by their types, in tests too. This check covers uses that clippy
//! cannot forbid because tests, build scripts and the binary may have them. `seams.toml` lists
//! them, where they are allowed, and why. The check also keeps `disallowed_methods` from being
//! switched off anywhere except in a seam.

use serde::Deserialize;

use crate::rust_file::{Kind, RustFile};
use crate::{Finding, Repository, data};

/// Paths and identifiers that only some places may use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seam {
    /// Beginnings of paths, such as `std::fs`.
    #[serde(default)]
    paths: Vec<String>,
    /// Identifiers, such as methods that are called on values of several types.
    #[serde(default)]
    identifiers: Vec<String>,
    /// The replacement.
    instead: String,
    /// Where they may be used.
    allowed: Vec<Place>,
}

/// A place that may use the paths and identifiers of a seam.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// A file, or a directory with everything below it.
    path: String,
    /// The reason.
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeamFile {
    seam: Vec<Seam>,
}

/// The seams in `seams.toml`.
#[must_use]
pub fn seams() -> Vec<Seam> {
    data::parse::<SeamFile>("seams.toml", include_str!("../seams.toml")).seam
}

/// Ways around the seams in production code, and permissions that are no longer needed.
#[must_use]
pub fn ways_round(repository: &Repository, seams: &[Seam]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for seam in seams {
        let mut needed = vec![false; seam.allowed.len()];
        for file in repository.rust.values().filter(|file| file.kind == Kind::Production) {
            let uses = seam.uses(file);
            if uses.is_empty() {
                continue;
            }
            match seam.allowed.iter().position(|place| place.contains(&file.path)) {
                Some(index) => needed[index] = true,
                None => findings.extend(uses.into_iter().map(|(what, line)| {
                    let message = format!("{what} goes round a seam: use {}", seam.instead);
                    Finding::new(&file.path, line, message)
                })),
            }
        }
        let idle = seam.allowed.iter().zip(needed).filter(|(_, needed)| !needed);
        findings.extend(idle.map(|(place, _)| {
            let message = format!(
                "{} uses nothing of this seam any more ({}): remove it",
                place.path, place.reason
            );
            Finding::new("tidy/seams.toml", 0, message)
        }));
    }
    findings
}

// === impl Seam ===

impl Seam {
    /// The paths and identifiers of the seam that a file uses outside of tests, with the lines.
    fn uses(&self, file: &RustFile) -> Vec<(String, usize)> {
        let starts = |path: &str, start: &str| {
            path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let paths = file.paths.iter();
        let paths = paths.filter(|(path, _)| self.paths.iter().any(|start| starts(path, start)));
        let names = file.identifiers.iter().filter(|(name, _)| self.identifiers.contains(name));
        let uses = paths.chain(names).filter(|(_, line)| !file.is_test(*line));
        uses.cloned().collect()
    }
}

impl Place {
    fn contains(&self, path: &str) -> bool {
        path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::made_for_tests::repository;

    #[test]
    fn a_way_round_a_seam_is_found() {
        let seam = Seam {
            paths: vec!["std::fs".to_owned()],
            identifiers: vec!["spawn_blocking".to_owned()],
            instead: "basalt_fs".to_owned(),
            allowed: vec![
                Place { path: "crates/fs".to_owned(), reason: "it is the seam".to_owned() },
                Place { path: "c".to_owned(), reason: "none".to_owned() },
            ],
        };
        let text = "use std::{fs, io};\nfn f() { fs::read(1); t.spawn_blocking(2) }\n\
                    #[cfg(test)]\nmod tests { fn g() { std::fs::write(3) } }\n";
        let files = [("a/src/lib.rs", text), ("crates/fs/src/b.rs", text), ("a/tests/t.rs", text)];
        let findings = ways_round(&repository(&files), &[seam]);
        let messages: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "a/src/lib.rs:1: std::fs goes round a seam: use basalt_fs",
                "a/src/lib.rs:2: std::fs::read goes round a seam: use basalt_fs",
                "a/src/lib.rs:2: spawn_blocking goes round a seam: use basalt_fs",
                "tidy/seams.toml: c uses nothing of this seam any more (none): remove it",
            ]
        );
    }
}
