//! `clippy.toml` forbids the ways around the seams that clippy can distinguish by their types.

use std::collections::BTreeSet;

use toml::Table;

use crate::{Finding, Repository};

/// The methods that clippy forbids according to ARCHITECTURE.md, in tests too.
const REFUSED: [&str; 18] = [
    // Time.
    "std::time::SystemTime::now",
    "std::time::SystemTime::elapsed",
    "std::time::Instant::now",
    "std::time::Instant::elapsed",
    // The network.
    "tokio::net::TcpStream::connect",
    "tokio::net::TcpListener::bind",
    "tokio::net::TcpSocket::new_v4",
    "tokio::net::TcpSocket::new_v6",
    "tokio::net::UdpSocket::bind",
    "tokio::net::lookup_host",
    "std::net::TcpStream::connect",
    "std::net::TcpStream::connect_timeout",
    "std::net::UdpSocket::bind",
    // Randomness.
    "rand::rng",
    "rand::random",
    "rand::random_range",
    "rand::random_bool",
    "rand::fill",
];
/// The crates that may switch off `disallowed_methods`.
const SEAM_CRATES: [&str; 2] = ["crates/runtime/", "crates/fs/"];

/// Methods that `clippy.toml` should forbid and does not, and places where the lint is off.
#[must_use]
pub fn gaps(repository: &Repository) -> Vec<Finding> {
    let text = repository.texts.get("clippy.toml").map_or("", String::as_str);
    let refused = match text.parse::<Table>() {
        Ok(table) => refused(&table),
        Err(error) => return vec![Finding::new("clippy.toml", 0, error.to_string())],
    };
    let missing = REFUSED.iter().filter(|path| !refused.contains(**path));
    let mut findings: Vec<_> = missing
        .map(|path| Finding::new("clippy.toml", 0, format!("disallowed-methods lacks {path}")))
        .collect();
    let files = repository.rust.values();
    for file in files.filter(|file| !SEAM_CRATES.iter().any(|start| file.path.starts_with(start))) {
        let off = file.paths.iter().filter(|(path, _)| path == "clippy::disallowed_methods");
        findings.extend(off.map(|(_, line)| {
            Finding::new(&file.path, *line, "disallowed_methods is switched off outside of a seam")
        }));
    }
    findings
}

fn refused(config: &Table) -> BTreeSet<String> {
    let methods = config.get("disallowed-methods").and_then(|methods| methods.as_array());
    let path = |method: &toml::Value| method.get("path")?.as_str().map(str::to_owned);
    methods.into_iter().flatten().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::made_for_tests::repository;

    #[test]
    fn a_method_that_is_not_refused_is_found() {
        let methods = REFUSED.map(|path| format!("{{ path = \"{path}\", reason = \"r\" }},"));
        let config = format!("disallowed-methods = [{}]\n", methods[1..].concat());
        let code = "#[allow(clippy::disallowed_methods)]\nfn f() {}\n";
        let files = [
            ("clippy.toml", config.as_str()),
            ("a/src/lib.rs", code),
            ("crates/runtime/src/lib.rs", code),
        ];
        let messages: Vec<_> = gaps(&repository(&files)).iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "clippy.toml: disallowed-methods lacks std::time::SystemTime::now",
                "a/src/lib.rs:1: disallowed_methods is switched off outside of a seam",
            ]
        );
    }
}
