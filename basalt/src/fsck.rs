//! `basalt fsck`: compares the storage root with the coordinator's records. Read-only.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use basalt_cluster::Nodes;
use basalt_fs::{LocalFileSystem, SharedFileSystem};
use basalt_fsck::Report;
use basalt_measure::report::{bytes, thousands};
use basalt_runtime::Seams;
use basalt_zk::{Client, Options};

use crate::output::print_result;
use crate::role_config::{self, MasterSettings, RoleFile, StorageSettings};
use crate::storage;

/// What `basalt fsck` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration file of a master of the cluster. `basalt local` keeps it in `config/` of
    /// the data directory, a master's pod in /etc/basalt
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print every unreferenced file, not only the number of each kind
    #[arg(long, conflicts_with = "json")]
    list: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Exit with code 3 if there are unreferenced files
    #[arg(long)]
    strict: bool,
}

/// The exit code if there are unreferenced files and `--strict` is set.
const UNREFERENCED: i32 = 3;
/// The exit code if something is missing or wrong, as that of `e2fsck` for errors that it left.
const PROBLEMS: i32 = 4;
/// Longer than a change of the coordinator's leader takes, on a busy machine too.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the coordinator may take to answer at first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// At most so many problems are printed.
const PROBLEMS_PRINTED: usize = 100;

/// Checks the cluster and prints the result. Ends the process with another exit code than 0 if
/// something was found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let file: RoleFile<MasterSettings> = role_config::read(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(check(&file))?;
    if arguments.json {
        print_result(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        print_result(&page(&file.cluster, &report, arguments.list))?;
    }
    match (report.problems.is_empty(), report.unreferenced.is_empty() || !arguments.strict) {
        (false, _) => process::exit(PROBLEMS),
        (true, false) => process::exit(UNREFERENCED),
        (true, true) => Ok(()),
    }
}

async fn check(file: &RoleFile<MasterSettings>) -> anyhow::Result<Report> {
    let (server, seams, timers) = (&file.settings.server, Seams::system(), file.timers()?);
    let files: SharedFileSystem = match &server.storage {
        StorageSettings::Folder(folder) => Arc::new(LocalFileSystem::open_read_only(folder)?),
        StorageSettings::Hdfs(hdfs) => Arc::new(storage::hdfs_files(hdfs, &timers, &seams)?),
    };
    let coordinators = &server.coordinators;
    let options = Options { connect_timeout: Some(CONNECT_TIMEOUT), ..Options::default() };
    let client = Client::connect(&seams, coordinators, SESSION_TIMEOUT, options);
    let client = client.await.context("no member of the coordinator answers")?;
    let nodes = Nodes::below(&server.nodes_parent);
    let report = basalt_fsck::fsck(&files, &client, &nodes).await;
    client.close().await;
    Ok(report?)
}

/// The result for a person. `list` says whether each unreferenced file is named.
fn page(cluster: &str, report: &Report, list: bool) -> String {
    let (summary, mut page) = (&report.summary, String::new());
    let _ = writeln!(
        page,
        "cluster {cluster} ({}): tables {}, regions {}, live region servers {}",
        summary.cluster_id, summary.tables, summary.regions, summary.region_servers
    );
    let _ = writeln!(
        page,
        "{} files, {}; manifests name {} of them, {}",
        thousands(summary.files as u64),
        bytes(summary.bytes),
        thousands(summary.named_files as u64),
        bytes(summary.named_bytes)
    );
    if !report.unreferenced.is_empty() {
        page.push_str("\nunreferenced files (those of open regions may still be written):\n");
    }
    for (kind, (count, size, first)) in report.kinds() {
        let (count, size) = (thousands(count as u64), bytes(size));
        let _ = write!(page, "  {kind:<22} {count:>8} {size:>10}");
        let example = if list { String::new() } else { format!("  such as {}", first.display()) };
        let _ = writeln!(page, "{example}");
        let files = report.unreferenced.iter().filter(|file| list && file.kind == kind);
        for file in files {
            let _ = writeln!(page, "    {} ({})", file.path.display(), bytes(file.bytes));
        }
    }
    page.push('\n');
    if report.problems.is_empty() {
        page.push_str("no problems\n");
        return page;
    }
    for problem in report.problems.iter().take(PROBLEMS_PRINTED) {
        let _ = writeln!(page, "PROBLEM {problem}");
    }
    let (total, printed) = (report.problems.len(), report.problems.len().min(PROBLEMS_PRINTED));
    let _ = writeln!(page, "{total} problems, {printed} of them printed");
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_fsck::{Problem, Unreferenced, UnreferencedKind};

    fn report() -> Report {
        let unreferenced = |path: &str| Unreferenced {
            kind: UnreferencedKind::Archived,
            path: path.into(),
            bytes: 3 << 20,
        };
        Report {
            unreferenced: vec![unreferenced("/archive/a"), unreferenced("/archive/b")],
            ..Report::default()
        }
    }

    #[test]
    fn unreferenced_files_are_counted_or_listed() {
        let page_of = |list| page("demo", &report(), list);
        let counted = page_of(false);
        assert!(
            counted.contains("archived                      2      6 MiB  such as /archive/a\n"),
            "{counted}"
        );
        assert!(counted.ends_with("\nno problems\n"), "{counted}");
        assert!(page_of(true).contains("    /archive/b (3 MiB)\n"), "{}", page_of(true));
    }

    #[test]
    fn problems_come_last_and_their_number_is_bounded() {
        let problem = |number| Problem::MissingFile {
            region: "r".to_owned(),
            path: format!("/data/{number:03}").into(),
        };
        let problems = (0..101).map(problem).collect();
        let page = page("demo", &Report { problems, ..report() }, false);
        assert!(page.contains("PROBLEM /data/099: missing; region r needs it\n"), "{page}");
        assert!(!page.contains("/data/100"), "{page}");
        assert!(page.ends_with("101 problems, 100 of them printed\n"), "{page}");
    }
}
