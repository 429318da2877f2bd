//! `basalt timers`: prints the timers of a manifest, and the worst case that results from them.

use std::path::PathBuf;

use basalt_api::{Timers, Timespan};

use crate::output::print_result;

/// The arguments of `basalt timers`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The manifest
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// Prints the timers.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let cluster = crate::manifest::read(&arguments.file)?;
    print_result(&page(&cluster.name, &cluster.timers))
}

fn page(cluster: &str, timers: &Timers) -> String {
    let target = Timespan::from(timers.target);
    let mut lines = vec![format!("Cluster {cluster}, failover target {target}"), String::new()];
    lines.extend(timers.named().into_iter().map(line));
    lines.extend([String::new(), "When a server is lost silently:".to_owned()]);
    let worst_case = timers.worst_case();
    lines.extend(worst_case.phases().into_iter().map(line));
    lines.push(line(("total", worst_case.total())));
    lines.join("\n") + "\n"
}

fn line((name, length): (&str, std::time::Duration)) -> String {
    format!("  {name:<24} {:>8}", Timespan::from(length).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_api::{TimerOverrides, timers::TARGET_DEFAULT};

    #[test]
    fn the_page_shows_session_lease_and_sum() {
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default()).unwrap();
        let page = page("demo", &timers);
        for expected in [
            "Cluster demo, failover target 3s",
            "  sessionTimeout               1.5s",
            "  servingLease                750ms",
            "  total                        2.9s",
        ] {
            assert!(page.lines().any(|line| line == expected), "{expected:?} is not in\n{page}");
        }
    }
}
