//! The files of the repository, read and analysed once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rust_file::{Kind, RustFile};

/// The files of a repository: those that git tracks, and new ones that it does not ignore.
#[derive(Debug, Default)]
pub struct Repository {
    /// The text of each file that is UTF-8, by its path relative to the root.
    pub texts: BTreeMap<String, String>,
    /// All paths of files, and of the directories that contain them.
    pub paths: BTreeSet<String>,
    /// The Rust files, by their paths.
    pub rust: BTreeMap<String, RustFile>,
}

// === impl Repository ===

impl Repository {
    /// Reads the repository that this crate is a part of.
    ///
    /// # Errors
    /// git cannot list the files, or a Rust file cannot be parsed.
    pub fn load() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut texts = BTreeMap::new();
        let mut others = Vec::new();
        for path in list_files(&root)? {
            match std::fs::read(root.join(&path)) {
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => drop(texts.insert(path, text)),
                    Err(_) => others.push(path),
                },
                // Deleted, but the deletion is not committed yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A link to a directory.
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => others.push(path),
                Err(error) => return Err(error),
            }
        }
        Self::from_texts(texts, others)
    }

    /// A repository of the text files `texts` and the other files `others`.
    ///
    /// # Errors
    /// A Rust file cannot be parsed.
    pub fn from_texts(
        texts: BTreeMap<String, String>,
        others: impl IntoIterator<Item = String>,
    ) -> io::Result<Self> {
        let mut paths = BTreeSet::new();
        for path in texts.keys().cloned().chain(others) {
            let parents = Path::new(&path).ancestors().skip(1);
            paths.extend(parents.filter_map(Path::to_str).map(str::to_owned));
            paths.insert(path);
        }
        let mut rust = parse_all(&texts)?;
        mark_test_modules(&mut rust);
        Ok(Self { texts, paths, rust })
    }

    /// The documents, with their text.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts
            .iter()
            .filter(|(path, _)| path.ends_with(".md"))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

fn list_files(root: &Path) -> io::Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = git.output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("git ls-files failed: {reason}")));
    }
    let paths = output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    Ok(paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect())
}

/// Parses the Rust files with as many threads as there are cores.
fn parse_all(texts: &BTreeMap<String, String>) -> io::Result<BTreeMap<String, RustFile>> {
    let files: Vec<_> = texts.iter().filter(|(path, _)| path.ends_with(".rs")).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let chunk = files.len().div_ceil(threads).max(1);
    let parsed: Vec<_> = std::thread::scope(|scope| {
        let parse = |files: &[(&String, &String)]| -> Vec<_> {
            files.iter().map(|(path, text)| RustFile::parse(path, text)).collect()
        };
        let workers: Vec<_> =
            files.chunks(chunk).map(|files| scope.spawn(move || parse(files))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a parser panicked")).collect()
    });
    let parsed = parsed.into_iter().collect::<Result<Vec<_>, _>>();
    let parsed = parsed.map_err(io::Error::other)?;
    Ok(parsed.into_iter().map(|file| (file.path.clone(), file)).collect())
}

/// Marks the files of modules declared under `#[cfg(test)]`, and of their submodules.
fn mark_test_modules(files: &mut BTreeMap<String, RustFile>) {
    let mut found: Vec<PathBuf> = Vec::new();
    for file in files.values() {
        let tests = file.modules.iter().filter(|module| module.is_test);
        found.extend(tests.map(|module| file.module_path(module)));
    }
    for file in files.values_mut() {
        let path = Path::new(&file.path);
        let is_test = found.iter().any(|module| {
            path == module.with_extension("rs")
                || path.starts_with(module)
                || module.extension().is_some() && path == module
        });
        if is_test {
            file.kind = Kind::Test;
        }
    }
}

#[cfg(test)]
pub(crate) mod made_for_tests {
    use super::Repository;

    /// A repository of these files.
    pub(crate) fn repository(files: &[(&str, &str)]) -> Repository {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Repository::from_texts(files.collect(), []).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::made_for_tests::repository;
    use crate::rust_file::Kind;

    #[test]
    fn a_module_is_a_test_where_its_declaration_says_so() {
        let repository = repository(&[
            ("a/src/lib.rs", "mod b;\n#[cfg(test)]\nmod t;\n"),
            ("a/src/b.rs", "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n"),
            ("a/src/b_tests.rs", "fn f() {}\n"),
            ("a/src/t/mod.rs", "mod deep;\n"),
            ("a/src/t/deep.rs", ""),
            ("a/tests/c.rs", ""),
            ("a/build.rs", ""),
        ]);
        let kinds: Vec<_> =
            repository.rust.iter().map(|(path, file)| (path.as_str(), file.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("a/build.rs", Kind::Build),
                ("a/src/b.rs", Kind::Production),
                ("a/src/b_tests.rs", Kind::Test),
                ("a/src/lib.rs", Kind::Production),
                ("a/src/t/deep.rs", Kind::Test),
                ("a/src/t/mod.rs", Kind::Test),
                ("a/tests/c.rs", Kind::Test),
            ]
        );
        assert!(repository.paths.contains("a/src/t"));
    }
}
