//! Each dependency that a Cargo.toml declares is used by the kind of code it is declared for.
//!
//! "Used" means that its name occurs as an identifier: in production code for `dependencies`, in
//! tests and examples for `dev-dependencies`, and in `build.rs` for `build-dependencies`. Code that
//! a build script generates is not checked; dependencies that only such code uses are listed in
//! `allow.toml`.

use std::collections::BTreeSet;

use toml::Table;

use crate::data::Exceptions;
use crate::rust_file::{Kind, RustFile};
use crate::{Finding, Repository};

/// Packages whose library has a different name.
const LIBRARY_NAMES: [(&str, &str); 1] = [("md-5", "md5")];

/// Unused dependencies of members and of the workspace.
#[must_use]
pub fn unused(repository: &Repository, exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inherited = BTreeSet::new();
    let manifests = repository.texts.iter().filter_map(|(path, text)| {
        let folder = path.strip_suffix("Cargo.toml")?;
        Some((path, folder, text.parse::<Table>()))
    });
    let mut declared_for_all = Vec::new();
    for (path, folder, manifest) in manifests {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                findings.push(Finding::new(path, 0, format!("cannot be read: {error}")));
                continue;
            }
        };
        if let Some(workspace) =
            manifest.get("workspace").and_then(|workspace| workspace.as_table())
        {
            let names = workspace.get("dependencies").and_then(|table| table.as_table());
            declared_for_all.extend(names.into_iter().flat_map(|names| names.keys().cloned()));
        }
        let sections = [
            ("dependencies", Kind::Production),
            ("dev-dependencies", Kind::Test),
            ("build-dependencies", Kind::Build),
        ];
        for (section, kind) in sections {
            let names = names_of(&manifest, section);
            inherited.extend(names.iter().cloned());
            // Here it adds features to a dependency that was already checked.
            let again =
                if kind == Kind::Test { names_of(&manifest, "dependencies") } else { vec![] };
            for name in names.iter().filter(|name| !again.contains(name)) {
                if !is_used(repository, folder, name, kind) && !exceptions.cover(path, name) {
                    let message = format!("{name} in [{section}] is not used");
                    findings.push(Finding::new(path, 0, message));
                }
            }
        }
    }
    let idle = declared_for_all.iter().filter(|name| !inherited.contains(*name));
    findings.extend(idle.map(|name| {
        Finding::new("Cargo.toml", 0, format!("no member uses workspace.dependencies.{name}"))
    }));
    findings
}

fn names_of(manifest: &Table, section: &str) -> Vec<String> {
    let table = manifest.get(section).and_then(|table| table.as_table());
    table.into_iter().flat_map(|table| table.keys().cloned()).collect()
}

fn is_used(repository: &Repository, folder: &str, name: &str, kind: Kind) -> bool {
    let renamed = LIBRARY_NAMES.iter().find(|(package, _)| *package == name);
    let identifier = renamed.map_or_else(|| name.replace('-', "_"), |(_, name)| (*name).to_owned());
    let files = repository.rust.values().filter(|file| file.path.starts_with(folder));
    files.into_iter().any(|file: &RustFile| {
        file.identifiers.iter().any(|(used, line)| {
            let kind_here = if file.is_test(*line) { Kind::Test } else { file.kind };
            // Fuzz targets are the production code of their package.
            let fits = kind_here == kind || folder == "fuzz/";
            fits && *used == identifier
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::made_for_tests::repository;

    #[test]
    fn a_dependency_that_nothing_of_its_kind_uses_is_found() {
        let code =
            "use used_one::X;\n#[cfg(test)]\nmod tests { use for_tests::Y; use tested::Z; }\n";
        let manifest = "[dependencies]\nused-one = \"1\"\ntested = \"1\"\nidle = \"1\"\n\
                        [dev-dependencies]\nfor-tests = \"1\"\nused-one = \"1\"\n\
                        [build-dependencies]\nfor-build = \"1\"\n";
        let files = [
            ("Cargo.toml", "[workspace.dependencies]\nidle = \"1\"\nnobodys = \"1\"\n"),
            ("a/Cargo.toml", manifest),
            ("a/src/lib.rs", code),
        ];
        let findings = unused(&repository(&files), &Exceptions::default());
        let messages: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "a/Cargo.toml: idle in [dependencies] is not used",
                "a/Cargo.toml: tested in [dependencies] is not used",
                "a/Cargo.toml: for-build in [build-dependencies] is not used",
                "Cargo.toml: no member uses workspace.dependencies.nobodys",
            ]
        );
    }
}
