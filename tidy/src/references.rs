//! Methods, tests, planted bugs, scenarios and failpoints that documents name exist in the code.
//!
//! Checked in every document except those that describe history (`docs/decisions/`,
//! `CHANGELOG.md`):
//! - `A::b`: if `A` is a type of the workspace, it has a member `b`; otherwise both are
//!   identifiers;
//! - `a_b_c` (three words or more): an identifier or a word of a string, so tests and metrics;
//! - in `docs/proof.md`, `a-b`: a string of the code (planted bugs, scenarios, failpoints), a value
//!   of the command line, or a name in a Cargo.toml.

use std::collections::BTreeSet;

use crate::data::Exceptions;
use crate::markdown::Document;
use crate::{Finding, Repository};

/// Names in the code.
struct Names<'a> {
    /// Identifiers and words of strings in Rust files, and the words of all other files except
    /// documents.
    words: BTreeSet<&'a str>,
    identifiers: BTreeSet<&'a str>,
    types: BTreeSet<&'a str>,
    members: BTreeSet<(&'a str, &'a str)>,
}

/// Names in code spans that the code does not have.
#[must_use]
pub fn missing_names(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let names = Names::of(repository);
    let mut findings = Vec::new();
    for (path, text) in repository.documents() {
        if path.starts_with("docs/decisions/") || path == "CHANGELOG.md" {
            continue;
        }
        for (span, line) in Document::parse(text).spans {
            let span = span.strip_suffix("()").unwrap_or(&span);
            let exists = if is_member(span) {
                names.has_member(span)
            } else if is_snake_case(span) {
                names.words.contains(span)
            } else if path == "docs/proof.md" && is_kebab_case(span) {
                names.has_kebab_case(span)
            } else {
                true
            };
            if !exists && !exceptions.cover(path, span) {
                findings.push(Finding::new(path, line, format!("`{span}` is not in the code")));
            }
        }
    }
    findings
}

// === impl Names ===

impl<'a> Names<'a> {
    fn of(repository: &'a Repository) -> Self {
        let mut names = Self {
            words: BTreeSet::new(),
            identifiers: BTreeSet::new(),
            types: BTreeSet::new(),
            members: BTreeSet::new(),
        };
        for file in repository.rust.values() {
            names.identifiers.extend(file.identifiers.iter().map(|(name, _)| name.as_str()));
            names.words.extend(file.strings.iter().flat_map(|(text, _)| words(text)));
            names.types.extend(file.types.iter().map(String::as_str));
            let members = file.members.iter();
            names.members.extend(members.map(|(of, name)| (of.as_str(), name.as_str())));
        }
        let others = repository.texts.iter().filter(|(path, _)| !is_document_or_rust(path));
        names.words.extend(others.flat_map(|(_, text)| words(text)));
        names.words.extend(&names.identifiers);
        names
    }

    fn has_member(&self, span: &str) -> bool {
        let parts: Vec<&str> = span.split("::").collect();
        if let [.., of, name] = parts[..]
            && self.types.contains(of)
        {
            return self.members.contains(&(of, name));
        }
        parts.iter().all(|part| self.identifiers.contains(part))
    }

    fn has_kebab_case(&self, span: &str) -> bool {
        self.words.contains(span) || self.identifiers.contains(camel_case(span).as_str())
    }
}

fn is_document_or_rust(path: &str) -> bool {
    path.ends_with(".md") || path.ends_with(".rs")
}

/// The words of a text, which consist of letters, digits, `_` and `-`. The parts of words with `-`
/// are words too.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let words = text.split(move |letter| !is_part(letter)).filter(|word| !word.is_empty());
    words.flat_map(|word| std::iter::once(word).chain(word.split('-')))
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn is_member(span: &str) -> bool {
    span.contains("::") && span.split("::").all(is_word)
}

fn is_snake_case(span: &str) -> bool {
    is_word(span) && span == span.to_lowercase() && span.split('_').count() >= 3
}

fn is_kebab_case(span: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    span.starts_with(|first: char| first.is_ascii_lowercase())
        && span.contains('-')
        && span.split('-').all(is_part)
}

fn camel_case(span: &str) -> String {
    let capitalise = |part: &str| {
        let (first, rest) = part.split_at(1);
        first.to_uppercase() + rest
    };
    span.split('-').map(capitalise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::made_for_tests::repository;

    #[test]
    fn a_name_that_is_not_in_the_code_is_found() {
        let code = "struct Region { view: u8 }\nimpl Region { fn log() {} }\nenum E { ColdDisk }\n\
                    fn a_crash_keeps_it() { f(\"late-open\", \"basalt_bytes_total\") }\n";
        let proof = "`Region::log` `Region::logs` `tokio::nothing` `a_crash_keeps_it`\n\
                     `a_crash_keeps_all` `late-open` `late-close` `cold-disk`\n\
                     `basalt_bytes_total`\n";
        let files = [("docs/proof.md", proof), ("a/src/lib.rs", code)];
        let findings = missing_names(&repository(&files), &Exceptions::default());
        let messages: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "docs/proof.md:1: `Region::logs` is not in the code",
                "docs/proof.md:1: `tokio::nothing` is not in the code",
                "docs/proof.md:2: `a_crash_keeps_all` is not in the code",
                "docs/proof.md:2: `late-close` is not in the code",
            ]
        );
    }
}
