//! Paths and links in documents and comments lead to files of the repository.
//!
//! A code span is a path of the repository if it looks like one: it has no placeholder, and
//! - it ends in the extension of a source file, a script or a document; or
//! - it ends in `/`, or begins with a directory at the root of the repository, and does not begin
//!   with `/`.
//!
//! Paths on the disk of a cluster (`/WALs`) and of znodes (`/basalt/master`) begin with `/`, so
//! they are not paths of the repository. A path that begins with a directory at the root must exist
//! as written. Any other path must be the end of an existing one: `region/open.rs` is
//! `regionserver/src/region/open.rs`.
//!
//! In spans with several words and in code blocks, only words with both a `/` and such an extension
//! are checked. The same is true of code spans in comments of Rust files.

use std::collections::BTreeMap;

use crate::data::Exceptions;
use crate::markdown::Document;
use crate::{Finding, Repository};

const EXTENSIONS: [&str; 8] = ["rs", "sh", "py", "proto", "java", "md", "svg", "tpl"];
/// Users have files with these extensions too, so they count only after a directory.
const COMMON_EXTENSIONS: [&str; 4] = ["toml", "yaml", "json", "xml"];

/// Paths in code spans and code blocks that do not exist.
#[must_use]
pub fn missing_paths(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut check = |file: &str, span: &str, line: usize| {
        let is_missing = looks_like_a_path(repository, span)
            && !exists(repository, file, span)
            && !exceptions.cover(file, span);
        if is_missing {
            let message = format!("`{span}` is no path in the repository");
            findings.push(Finding::new(file, line, message));
        }
    };
    for (path, text) in repository.documents() {
        let document = Document::parse(text);
        for (span, line) in &document.spans {
            match span.split_whitespace().collect::<Vec<_>>()[..] {
                [one] => check(path, one, *line),
                ref words => {
                    words.iter().filter(|w| is_file(w)).for_each(|w| check(path, w, *line))
                }
            }
        }
        for (code, line) in &document.code {
            code.split_whitespace().filter(|w| is_file(w)).for_each(|w| check(path, w, *line));
        }
    }
    for (path, line, comment) in comments(repository) {
        let spans = comment.split('`').skip(1).step_by(2);
        spans.filter(|span| is_file(span)).for_each(|span| check(path, span, line));
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Links of documents whose file or anchor does not exist.
#[must_use]
pub fn broken_links(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let documents: BTreeMap<_, _> =
        repository.documents().map(|(path, text)| (path, Document::parse(text))).collect();
    let mut findings = Vec::new();
    for (path, document) in &documents {
        for (link, line) in &document.links {
            if link.contains("://") || link.starts_with("mailto:") || exceptions.cover(path, link) {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if target.is_empty() { (*path).to_owned() } else { relative(path, target) };
            if !repository.paths.contains(&target) {
                findings.push(Finding::new(path, *line, format!("the link {link} leads nowhere")));
                continue;
            }
            let has_anchor = |target: &Document| target.anchors.iter().any(|name| name == anchor);
            if !anchor.is_empty() && !documents.get(target.as_str()).is_some_and(has_anchor) {
                let message = format!("the link {link} names a heading that does not exist");
                findings.push(Finding::new(path, *line, message));
            }
        }
    }
    findings
}

/// Documents that other files name and that are not in the repository.
#[must_use]
pub fn missing_documents(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The tests of this crate name documents that do not exist.
    let files = repository.texts.iter().filter(|(path, _)| !path.starts_with("tidy/"));
    for (path, text) in files {
        for (line, number) in text.lines().zip(1..) {
            let is_part = |letter: char| letter.is_alphanumeric() || "./_-".contains(letter);
            for word in line.split(|letter| !is_part(letter)) {
                let word = word.trim_end_matches('.');
                let is_document = word.starts_with("docs/") && word.ends_with(".md");
                if is_document
                    && !word.contains("NNNN")
                    && !repository.paths.contains(word)
                    && !exceptions.cover(path, word)
                {
                    let message = format!("{word} is not in the repository");
                    findings.push(Finding::new(path, number, message));
                }
            }
        }
    }
    findings
}

/// Comments of Rust files that fill whole lines: file, line, text.
pub(crate) fn comments(repository: &Repository) -> impl Iterator<Item = (&str, usize, &str)> {
    let files = repository.texts.iter().filter(|(path, _)| path.ends_with(".rs"));
    files.flat_map(|(path, text)| {
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim_start(), number));
        lines.filter(|(line, _)| line.starts_with("//")).map(|(line, n)| (path.as_str(), n, line))
    })
}

fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.contains("NNNN")
        && path.chars().all(|letter| letter.is_ascii_alphanumeric() || "._/-*".contains(letter))
}

fn extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.')
        .map_or("", |(stem, extension)| if stem.is_empty() { "" } else { extension })
}

/// Whether a word is a path with a directory and a file extension.
fn is_file(word: &str) -> bool {
    let extension = extension(word);
    is_plain(word)
        && word.contains('/')
        && !word.starts_with(['/', '-'])
        && (EXTENSIONS.contains(&extension) || COMMON_EXTENSIONS.contains(&extension))
}

fn looks_like_a_path(repository: &Repository, span: &str) -> bool {
    if !is_plain(span) || span.starts_with(['/', '-']) {
        return false;
    }
    let has_root = span.split_once('/').is_some_and(|(root, _)| repository.paths.contains(root));
    let is_bare_name = EXTENSIONS.contains(&extension(span)) && !span.contains('*');
    has_root || is_file(span) || is_bare_name || span.ends_with('/')
}

/// Whether a span in this file leads to a file or a directory.
fn exists(repository: &Repository, file: &str, span: &str) -> bool {
    let span = span.trim_end_matches('/');
    let starts_at_root =
        span.split_once('/').is_some_and(|(root, _)| repository.paths.contains(root));
    let wanted: Vec<&str> = span.trim_start_matches("./").split('/').collect();
    let here = relative(file, span);
    repository.paths.contains(&here)
        || repository.paths.iter().any(|path| {
            let parts: Vec<&str> = path.split('/').collect();
            if starts_at_root {
                return matches(&wanted, &parts);
            }
            let start = parts.len().checked_sub(wanted.len());
            start.is_some_and(|start| matches(&wanted, &parts[start..]))
        })
}

/// Whether a path matches a pattern of names, `*` and `**`.
fn matches(wanted: &[&str], path: &[&str]) -> bool {
    match (wanted, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|skipped| matches(rest, &path[skipped..])),
        ([name, wanted @ ..], [part, path @ ..]) => {
            (*name == "*" || name == part) && matches(wanted, path)
        }
        _ => false,
    }
}

/// Resolves `target`, as written in a file, to a path from the root.
fn relative(file: &str, target: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::made_for_tests::repository;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let findings = missing_paths(&repository(files), &Exceptions::default());
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        let text = "`a/src/x.rs` `a/src/lib.rs` `src/lib.rs` `b.rs` `lib.rs` `/WALs/x` `<a>/x.rs`\n\
                    `a/nothing` `run a/src/y.rs` `x/y` `a/*/lib.rs` `nowhere/`\n\
                    ```\na/src/z.sh\n```\n";
        assert_eq!(
            found(&[("docs/t.md", text), ("a/src/lib.rs", "//! `u/v.rs`, `src/lib.rs`\n")]),
            [
                "a/src/lib.rs:1: `u/v.rs` is no path in the repository",
                "docs/t.md:1: `a/src/x.rs` is no path in the repository",
                "docs/t.md:1: `b.rs` is no path in the repository",
                "docs/t.md:2: `a/nothing` is no path in the repository",
                "docs/t.md:2: `a/src/y.rs` is no path in the repository",
                "docs/t.md:2: `nowhere/` is no path in the repository",
                "docs/t.md:4: `a/src/z.sh` is no path in the repository",
            ]
        );
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let files = [
            ("README.md", "[a](docs/a.md#one) [b](docs/a.md#two) [c](docs/c.md) [d](#e)\n"),
            ("docs/a.md", "# One\n[up](../README.md) [web](https://x/y)\n"),
        ];
        let findings = broken_links(&repository(&files), &Exceptions::default());
        let messages: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "README.md:1: the link docs/a.md#two names a heading that does not exist",
                "README.md:1: the link docs/c.md leads nowhere",
                "README.md:1: the link #e names a heading that does not exist",
            ]
        );
    }

    #[test]
    fn a_document_that_a_script_names_must_be_there() {
        let files = [("a.sh", "# see docs/b.md, docs/c.md.\n"), ("docs/b.md", "")];
        let findings = missing_documents(&repository(&files), &Exceptions::default());
        assert_eq!(findings, [Finding::new("a.sh", 1, "docs/c.md is not in the repository")]);
    }
}
