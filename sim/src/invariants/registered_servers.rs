//! Ephemeral nodes live exactly as long as their sessions. Once the faults are over, each running
//! process has one node, and there are no others.

use std::collections::BTreeMap;

use super::Violation;

/// Compares the names of the registered servers (`host,port,startcode`) with the running processes.
pub(crate) fn check_registered(registered: &[String], running: &[String]) -> Option<Violation> {
    let mut counts: BTreeMap<&str, usize> = running.iter().map(|name| (&name[..], 0)).collect();
    for name in registered {
        let host = name.split(',').next().unwrap_or(name);
        *counts.entry(host).or_insert(1) += 1;
    }
    let wrong = counts.values().any(|count| *count != 1);
    let seen = || format!("{registered:?} are registered, {running:?} run");
    wrong.then(|| Violation::new("ephemeral nodes live as long as their sessions", seen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_the_dead_and_missing_nodes_are_violations() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let running = names(&["a", "b"]);
        assert_eq!(check_registered(&names(&["a,1,5", "b,1,6"]), &running), None);
        assert!(check_registered(&names(&["a,1,5"]), &running).is_some(), "b is missing");
        assert!(check_registered(&names(&["a,1,5", "b,1,6", "b,1,7"]), &running).is_some());
        assert!(check_registered(&names(&["a,1,5", "b,1,6", "c,1,7"]), &running).is_some());
    }
}
