//! Assigns the ports of each process.
//!
//! The first process of each role gets HBase's default ports. The following processes get the next
//! unassigned numbers. Assigned ports are recorded in the data folder, so that clients find a
//! restarted cluster at the same ports.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use basalt_api::role_file::PortName;

use crate::role_config::RoleName;

/// The ports of all processes, by process name.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ports(pub BTreeMap<String, BTreeMap<PortName, u16>>);

// === impl Ports ===

impl Ports {
    /// Adds the ports that `processes` lack: the default port, or the next unassigned number.
    #[must_use]
    pub fn completed(mut self, processes: &[(String, RoleName)]) -> Self {
        let mut taken: BTreeSet<u16> = self.all().collect();
        // First processes always get their defaults, whatever ports the processes of other roles
        // need.
        let firsts = processes.iter().filter(|(name, _)| name.ends_with("-0"));
        let others = processes.iter().filter(|(name, _)| !name.ends_with("-0"));
        for (name, role) in firsts.chain(others) {
            let ports = self.0.entry(name.clone()).or_default();
            for (port_name, default) in PortName::of_role(*role) {
                ports.entry(*port_name).or_insert_with(|| take_from(*default, &mut taken));
            }
        }
        self
    }

    /// Assigns ports from `free`, which must contain enough, to `processes`.
    pub fn from_free(processes: &[(String, RoleName)], free: &[u16]) -> Self {
        let mut free = free.iter().copied();
        let mut ports = Self::default();
        for (name, role) in processes {
            let names = PortName::of_role(*role).iter().map(|(port_name, _)| *port_name);
            ports.0.insert(name.clone(), names.zip(free.by_ref()).collect());
        }
        ports
    }

    /// The port `name` of `process`.
    pub fn get(&self, process: &str, name: PortName) -> Option<u16> {
        self.0.get(process)?.get(&name).copied()
    }

    /// All ports.
    pub fn all(&self) -> impl Iterator<Item = u16> {
        self.0.values().flat_map(|ports| ports.values().copied())
    }
}

fn take_from(first: u16, taken: &mut BTreeSet<u16>) -> u16 {
    let port = (first..u16::MAX).find(|port| !taken.contains(port)).unwrap_or(u16::MAX);
    taken.insert(port);
    port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(role: RoleName, count: u32) -> Vec<(String, RoleName)> {
        (0..count).map(|index| (format!("{}-{index}", role.subcommand()), role)).collect()
    }

    #[test]
    fn the_first_have_the_default_ports_of_hbase_and_the_others_the_next() {
        let processes =
            [processes(RoleName::Coordinator, 3), processes(RoleName::RegionServer, 12)].concat();
        let ports = Ports::default().completed(&processes);
        let port = |process: &str, name| ports.get(process, name).unwrap();
        assert_eq!(port("coordinator-0", PortName::Client), 2181);
        assert_eq!(port("coordinator-2", PortName::Client), 2183);
        assert_eq!(port("regionserver-0", PortName::Rpc), 16020);
        assert_eq!(port("regionserver-0", PortName::Web), 16030);
        assert_eq!(port("regionserver-9", PortName::Rpc), 16029);
        // 16030 to 16039 are the web ports of the first ten.
        assert_eq!(port("regionserver-10", PortName::Rpc), 16040);
    }

    #[test]
    fn no_port_is_given_twice() {
        let processes = [
            processes(RoleName::Coordinator, 5),
            processes(RoleName::Master, 9),
            processes(RoleName::RegionServer, 1000),
        ]
        .concat();
        let ports = Ports::default().completed(&processes);
        let distinct: BTreeSet<u16> = ports.all().collect();
        assert_eq!(distinct.len(), 5 * 2 + 9 * 3 + 1000 * 3);
    }

    #[test]
    fn what_was_given_is_kept() {
        let two = Ports::from_free(&processes(RoleName::Coordinator, 2), &[7001, 7002, 7003, 7004]);
        let three = two.clone().completed(&processes(RoleName::Coordinator, 3));
        assert_eq!(three.get("coordinator-1", PortName::Peer), Some(7004));
        assert_eq!(three.get("coordinator-2", PortName::Client), Some(2181));
    }
}
