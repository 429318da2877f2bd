//! Which paths are valid, according to ZooKeeper's rules.

/// A path that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} {problem}")]
pub struct PathError {
    /// The path.
    pub path: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Checks that `path` may name a node. It must be absolute, with no empty, `.` or `..` component,
/// no trailing slash, and no control, private-use or surrogate character.
///
/// # Errors
/// The path is not valid; the error says why.
pub fn validate(path: &str) -> Result<(), PathError> {
    match problem_of(path) {
        None => Ok(()),
        Some(problem) => Err(PathError { path: path.to_owned(), problem }),
    }
}

/// Like [`validate`], for a path to create: the name of a sequential node may be its number alone.
///
/// # Errors
/// See [`validate`].
pub fn validate_create(path: &str, is_sequential: bool) -> Result<(), PathError> {
    if is_sequential { validate(&format!("{path}1")) } else { validate(path) }
}

/// The parent of a valid path. `None` for the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) => Some("/"),
        Some(slash) => path.get(..slash),
        None => None,
    }
}

fn problem_of(path: &str) -> Option<&'static str> {
    let Some(below_root) = path.strip_prefix('/') else {
        return Some("does not begin with /");
    };
    if below_root.is_empty() {
        return None;
    }
    if path.ends_with('/') {
        return Some("ends with /");
    }
    for component in below_root.split('/') {
        match component {
            "" => return Some("has an empty component"),
            "." | ".." => return Some("has a relative component"),
            _ if component.chars().any(is_forbidden) => return Some("has a forbidden character"),
            _ => {}
        }
    }
    None
}

/// Java sees characters above U+FFFF as surrogates, which it forbids.
fn is_forbidden(character: char) -> bool {
    matches!(
        u32::from(character),
        0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_judged_as_zookeeper_judges_them() {
        for good in ["/", "/a", "/a/b.c", "/a/...", "/.a", "/a..", "/é"] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/..",
            "/a\0",
            "/a\u{1f}",
            "/a\u{7f}",
            "/\u{e000}",
            "/\u{fff0}",
            "/\u{1f600}",
        ] {
            assert!(validate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_sequential_node_may_be_all_number() {
        assert!(validate_create("/queue/", true).is_ok());
        assert!(validate_create("/queue/", false).is_err());
    }

    #[test]
    fn parents() {
        assert_eq!(parent("/"), None);
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/a/b"), Some("/a"));
    }
}
