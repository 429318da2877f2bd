//! Limits of the code: lengths of files, functions and lines; module documentation; `biased`.

use crate::data::Exceptions;
use crate::{Finding, Repository};

/// Maximum lines of a Rust file.
pub const FILE_LINES_MAX: usize = 600;
/// Maximum lines of a function outside of tests, from `fn` to the closing brace.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Maximum characters of a line of a Rust file.
pub const LINE_CHARACTERS_MAX: usize = 100;

/// Rust files that are too long.
#[must_use]
pub fn long_files(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in repository.rust.keys() {
        let lines = repository.texts[path].lines().count();
        if lines > FILE_LINES_MAX && !exceptions.cover(path, "file") {
            let message = format!("{lines} lines; at most {FILE_LINES_MAX}. Split it by subject");
            findings.push(Finding::new(path, 0, message));
        }
    }
    findings
}

/// Functions outside of tests that are too long.
#[must_use]
pub fn long_functions(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in &repository.rust {
        for function in file.functions.iter().filter(|function| !file.is_test(function.line)) {
            let (name, lines) = (&function.name, function.lines);
            if lines > FUNCTION_LINES_MAX && !exceptions.cover(path, name) {
                let message = format!("{name} has {lines} lines; at most {FUNCTION_LINES_MAX}");
                findings.push(Finding::new(path, function.line, message));
            }
        }
    }
    findings
}

/// Lines of Rust files that are too long. A line that is one string or one link cannot be broken.
#[must_use]
pub fn long_lines(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in repository.rust.keys() {
        for (line, number) in repository.texts[path].lines().zip(1..) {
            let characters = line.chars().count();
            if characters > LINE_CHARACTERS_MAX && !exceptions.cover(path, line.trim()) {
                let message = format!("{characters} characters; at most {LINE_CHARACTERS_MAX}");
                findings.push(Finding::new(path, number, message));
            }
        }
    }
    findings
}

/// Rust files that do not open with `//!`.
#[must_use]
pub fn undocumented_files(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let files = repository.rust.keys().filter(|path| {
        let text = &repository.texts[*path];
        // A fuzz target begins with `no_main`.
        let text = text.strip_prefix("#![no_main]\n").unwrap_or(text);
        !text.starts_with("//! ") && !exceptions.cover(path, "file")
    });
    files.map(|path| Finding::new(path, 1, "does not open with `//!`")).collect()
}

/// `select!`s that do not begin with `biased;`: their branches are tried in a random order that no
/// seed can reproduce.
#[must_use]
pub fn unbiased_selects(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in &repository.rust {
        for (line, is_biased) in &file.selects {
            if !is_biased && !exceptions.cover(path, "select!") {
                findings.push(Finding::new(path, *line, "select! without `biased;`"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::made_for_tests::repository;

    fn lines(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_exceeds_a_limit_is_found() {
        let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX));
        let wide = format!("// {}\n", "x".repeat(LINE_CHARACTERS_MAX));
        let test = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let text = format!("{long}{wide}fn h() {{ tokio::select! {{ a = b => c }} }}\n{test}");
        let repository = repository(&[("a/src/lib.rs", text.as_str())]);
        let none = Exceptions::default();
        assert_eq!(
            lines(&long_functions(&repository, &none)),
            ["a/src/lib.rs:1: f has 72 lines; at most 70"]
        );
        assert_eq!(
            lines(&long_lines(&repository, &none)),
            ["a/src/lib.rs:73: 103 characters; at most 100"]
        );
        assert_eq!(
            lines(&unbiased_selects(&repository, &none)),
            ["a/src/lib.rs:74: select! without `biased;`"]
        );
        assert_eq!(
            lines(&undocumented_files(&repository, &none)),
            ["a/src/lib.rs:1: does not open with `//!`"]
        );
    }

    #[test]
    fn a_long_file_is_found() {
        let text = "//! a\n".repeat(FILE_LINES_MAX + 1);
        let repository = repository(&[("a/src/lib.rs", text.as_str())]);
        let found = lines(&long_files(&repository, &Exceptions::default()));
        assert_eq!(found, ["a/src/lib.rs: 601 lines; at most 600. Split it by subject"]);
    }
}
