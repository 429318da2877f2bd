//! The data files of this crate: exceptions with their reasons, seams and words.

use std::cell::RefCell;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Finding;

/// An exception from a check.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The check: the name of its test in `tests/repository.rs`.
    pub check: String,
    /// The excepted file; all files if omitted.
    pub path: Option<String>,
    /// The excepted item: a code span, a function, a dependency.
    pub what: String,
    /// The reason.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptionFile {
    allow: Vec<Exception>,
}

/// The exceptions from one check. It records which of them are needed.
#[derive(Debug, Default)]
pub struct Exceptions {
    entries: Vec<Exception>,
    needed: RefCell<Vec<usize>>,
}

// === impl Exceptions ===

impl Exceptions {
    /// The exceptions from this check in `allow.toml`.
    #[must_use]
    pub fn of(check: &str) -> Self {
        let file: ExceptionFile = parse("allow.toml", include_str!("../allow.toml"));
        Self::from_entries(file.allow.into_iter().filter(|entry| entry.check == check).collect())
    }

    /// Exceptions from a given list.
    #[must_use]
    pub fn from_entries(entries: Vec<Exception>) -> Self {
        Self { entries, needed: RefCell::default() }
    }

    /// Whether `what` is excepted in this file.
    #[must_use]
    pub fn cover(&self, path: &str, what: &str) -> bool {
        let mut covered = false;
        for (index, entry) in self.entries.iter().enumerate() {
            let is_here = entry.path.as_deref().is_none_or(|excepted| excepted == path);
            if is_here && entry.what == what {
                self.needed.borrow_mut().push(index);
                covered = true;
            }
        }
        covered
    }

    /// A finding for each exception that covered nothing.
    #[must_use]
    pub fn not_needed(&self) -> Vec<Finding> {
        let needed = self.needed.borrow();
        let entries = self.entries.iter().enumerate();
        let idle = entries.filter(|(index, _)| !needed.contains(index));
        let finding = |(_, entry): (usize, &Exception)| {
            let message = format!(
                "the exception {:?} from {:?} is not needed: remove it",
                entry.what, entry.check
            );
            Finding::new("tidy/allow.toml", 0, message)
        };
        idle.map(finding).collect()
    }
}

/// Reads a data file of this crate.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, text: &str) -> T {
    toml::from_str(text).unwrap_or_else(|error| panic!("tidy/{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_that_covers_nothing_is_found() {
        let entry = |what: &str| Exception {
            check: "c".to_owned(),
            path: Some("a.md".to_owned()),
            what: what.to_owned(),
            reason: "r".to_owned(),
        };
        let exceptions = Exceptions::from_entries(vec![entry("x"), entry("y")]);
        assert!(exceptions.cover("a.md", "x"));
        assert!(!exceptions.cover("b.md", "y"));
        let messages: Vec<_> = exceptions.not_needed().iter().map(ToString::to_string).collect();
        let expected = "tidy/allow.toml: the exception \"y\" from \"c\" is not needed: remove it";
        assert_eq!(messages, [expected]);
    }
}
