//! Rules of the repository. A test that fails prints each violation and how to correct it.

use std::sync::LazyLock;

use basalt_tidy::data::Exceptions;
use basalt_tidy::{
    Finding, Repository, clippy_config, dependencies, docs, limits, references, seams, words,
};

static REPOSITORY: LazyLock<Repository> =
    LazyLock::new(|| Repository::load().expect("the repository can be read"));

/// Runs a check with the exceptions that `allow.toml` has for it.
fn check(name: &str, find: impl FnOnce(&Repository, &Exceptions) -> Vec<Finding>) {
    let exceptions = Exceptions::of(name);
    let mut findings = find(&REPOSITORY, &exceptions);
    findings.extend(exceptions.not_needed());
    none(&findings);
}

fn none(findings: &[Finding]) {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn paths_in_documents_exist() {
    check("paths_in_documents_exist", docs::missing_paths);
}

#[test]
fn links_in_documents_lead_somewhere() {
    check("links_in_documents_lead_somewhere", docs::broken_links);
}

#[test]
fn documents_that_files_name_exist() {
    check("documents_that_files_name_exist", docs::missing_documents);
}

#[test]
fn names_in_documents_are_in_the_code() {
    check("names_in_documents_are_in_the_code", references::missing_names);
}

#[test]
fn files_are_short() {
    check("files_are_short", limits::long_files);
}

#[test]
fn functions_are_short() {
    check("functions_are_short", limits::long_functions);
}

#[test]
fn lines_are_short() {
    check("lines_are_short", limits::long_lines);
}

#[test]
fn files_open_with_their_documentation() {
    check("files_open_with_their_documentation", limits::undocumented_files);
}

#[test]
fn every_select_is_biased() {
    check("every_select_is_biased", limits::unbiased_selects);
}

#[test]
fn dependencies_are_used() {
    check("dependencies_are_used", dependencies::unused);
}

#[test]
fn production_code_keeps_to_the_seams() {
    none(&seams::ways_round(&REPOSITORY, &seams::seams()));
}

#[test]
fn clippy_refuses_what_architecture_says() {
    none(&clippy_config::gaps(&REPOSITORY));
}

#[test]
fn forbidden_words_are_not_used() {
    none(&words::forbidden(&REPOSITORY, &words::words()));
}
