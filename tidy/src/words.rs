//! Identifiers and phrases that must not be used, and their replacements: `words.toml`.

use serde::Deserialize;

use crate::docs::comments;
use crate::markdown::Document;
use crate::{Finding, Repository, data};

/// Where a word is forbidden.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Rust identifiers.
    Identifiers,
    /// Documents, comments, and strings with more than one word.
    Prose,
    /// All of these.
    Both,
}

/// How a word is compared with an identifier.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// The whole identifier is the word.
    #[default]
    Whole,
    /// The word, in lower case, is one of the words of the identifier: `cut` is a part of
    /// `cut_of_log` and of `LogCut`.
    Part,
}

/// An entry of `words.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// The identifier or phrase.
    pub forbidden: String,
    /// The replacement.
    #[serde(rename = "use")]
    pub replacement: String,
    /// Where it is forbidden.
    pub scope: Scope,
    /// How it is compared with identifiers.
    #[serde(default, rename = "match")]
    pub how: Match,
    /// Files and directories where it may stay, with the reason after a colon.
    #[serde(default)]
    pub except: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WordFile {
    word: Vec<Word>,
}

/// The entries of `words.toml`.
#[must_use]
pub fn words() -> Vec<Word> {
    data::parse::<WordFile>("words.toml", include_str!("../words.toml")).word
}

/// Uses of forbidden words, and exceptions that are not needed.
#[must_use]
pub fn forbidden(repository: &Repository, words: &[Word]) -> Vec<Finding> {
    let prose = prose(repository);
    let mut findings = Vec::new();
    for word in words {
        let mut needed = vec![false; word.except.len()];
        let mut add = |path: &str, line: usize| {
            // This crate's own sources and data name what is forbidden.
            if path.starts_with("tidy/") {
                return;
            }
            if let Some(index) = word.exception(path) {
                needed[index] = true;
            } else {
                let (forbidden, replacement) = (&word.forbidden, &word.replacement);
                let message = format!("{forbidden:?} is not used here: write {replacement}");
                findings.push(Finding::new(path, line, message));
            }
        };
        if word.scope != Scope::Identifiers {
            let uses = prose.iter().filter(|(_, _, text)| word.is_in(text));
            uses.for_each(|(path, line, _)| add(path, *line));
        }
        if word.scope != Scope::Prose {
            for file in repository.rust.values() {
                let uses = file.identifiers.iter().filter(|(name, _)| word.is_identifier(name));
                uses.for_each(|(_, line)| add(&file.path, *line));
            }
        }
        let idle = word.except.iter().zip(needed).filter(|(_, needed)| !needed);
        findings.extend(idle.map(|(entry, _)| {
            let message = format!("{:?} is not used in {entry}: remove it", word.forbidden);
            Finding::new("tidy/words.toml", 0, message)
        }));
    }
    findings.sort();
    findings.dedup();
    findings
}

// === impl Word ===

impl Word {
    fn is_identifier(&self, name: &str) -> bool {
        match self.how {
            Match::Whole => name == self.forbidden,
            Match::Part => parts(name).any(|part| part == self.forbidden),
        }
    }

    fn is_in(&self, text: &str) -> bool {
        if self.forbidden.chars().any(char::is_uppercase) {
            contains_phrase(text, &self.forbidden)
        } else {
            contains_phrase(&text.to_lowercase(), &self.forbidden)
        }
    }

    /// The first exception for this file.
    fn exception(&self, path: &str) -> Option<usize> {
        self.except.iter().position(|entry| {
            let start = entry.split(':').next().unwrap_or(entry);
            path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// The words of an identifier in snake case or camel case, in lower case.
fn parts(name: &str) -> impl Iterator<Item = String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for letter in name.chars() {
        if letter == '_' || (letter.is_uppercase() && was_lower) {
            parts.push(String::new());
        }
        was_lower = letter.is_lowercase() || letter.is_ascii_digit();
        if let Some(last) = parts.last_mut()
            && letter != '_'
        {
            last.extend(letter.to_lowercase());
        }
    }
    parts.into_iter()
}

/// The prose of the repository: lines of documents without code, comments, and strings with spaces.
fn prose(repository: &Repository) -> Vec<(&str, usize, String)> {
    let mut prose = Vec::new();
    for (path, text) in repository.documents() {
        let lines = Document::parse(text).prose.into_iter();
        prose.extend(lines.map(|(text, line)| (path, line, text)));
    }
    prose.extend(comments(repository).map(|(path, line, text)| (path, line, text.to_owned())));
    for file in repository.rust.values() {
        let texts = file.strings.iter().filter(|(text, _)| text.trim().contains(' '));
        prose.extend(texts.map(|(text, line)| (file.path.as_str(), *line, text.clone())));
    }
    prose
}

/// Whether a text contains the phrase, with neither end of the phrase inside a word.
fn contains_phrase(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + phrase.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::made_for_tests::repository;

    fn word(forbidden: &str, scope: Scope, how: Match) -> Word {
        let replacement = "w".to_owned();
        let except = match scope {
            Scope::Prose => vec!["b: it is history".to_owned()],
            _ => vec![],
        };
        Word { forbidden: forbidden.to_owned(), replacement, scope, how, except }
    }

    #[test]
    fn a_forbidden_word_is_found_in_its_scope() {
        let code = "//! Lived through.\nfn mark_cut(LogCut: T) { take_on(\"lived through it\") }\n\
                    fn cutter() { take_on_all(\"take_on\") }\n";
        let files = [
            ("a/src/lib.rs", code),
            ("b/c.md", "lived through"),
            ("d.md", "Outlived, lived throughout. A design, no DESIGN"),
        ];
        let words = [
            word("lived through", Scope::Prose, Match::Whole),
            word("cut", Scope::Both, Match::Part),
            word("take_on", Scope::Identifiers, Match::Whole),
            word("DESIGN", Scope::Prose, Match::Whole),
        ];
        let findings = forbidden(&repository(&files), &words);
        let idle = "tidy/words.toml: \"DESIGN\" is not used in b: it is history: remove it";
        assert_eq!(findings.last().unwrap().to_string(), idle);
        let found: Vec<_> = findings[..findings.len() - 1]
            .iter()
            .map(|finding| (finding.line, finding.message.split('"').nth(1).unwrap()))
            .collect();
        assert_eq!(
            found,
            [(1, "lived through"), (2, "cut"), (2, "lived through"), (2, "take_on"), (1, "DESIGN")]
        );
    }

    #[test]
    fn every_exception_has_its_reason() {
        for word in words() {
            let has_reason =
                |entry: &String| entry.split_once(": ").is_some_and(|(_, r)| r.len() > 5);
            assert!(word.except.iter().all(has_reason), "{word:?}");
        }
    }
}
