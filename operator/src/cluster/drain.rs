//! The operator's report to the active master about the pods of region servers: the rack of each
//! pod, and which pods are surplus. A scale-in waits for the drain: a pod is removed only when it
//! owns no regions.

use std::collections::HashMap;

use basalt_api::role_file::RoleName;
use basalt_cluster::pb;
use basalt_runtime::Network;
use tokio::time::timeout;

use super::observe::{self, ANSWER_TIMEOUT, Member, Observed};
use crate::names;

/// The number of region servers for now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ForNow {
    pub(super) region_servers: u32,
    /// Why it is not the declared number yet.
    pub(super) waits_for: Option<String>,
}

/// Reports all pods of region servers to the active master. Pods beyond the `declared` number are
/// to be drained. Returns how many regions each pod owns, by its uid. `None` if no master answers.
pub(super) async fn report(
    network: &Network,
    observed: &Observed,
    declared: u32,
) -> Option<HashMap<String, u32>> {
    let active = observed.members.get(observed.active_master()?)?;
    let mut client = observe::master(network, active.address.as_deref()?)?;
    let request = pb::PodsRequest { pods: known(observed, declared) };
    let reply = timeout(ANSWER_TIMEOUT, client.pods(request)).await;
    Some(reply.ok()?.ok()?.into_inner().regions)
}

/// The report about the pods of region servers.
fn known(observed: &Observed, declared: u32) -> Vec<pb::Pod> {
    let pods = observed.of_role(RoleName::RegionServer).map(|(name, member)| pb::Pod {
        uid: member.uid.clone(),
        rack: member.rack.clone().unwrap_or_default(),
        draining: is_surplus(name, declared),
    });
    pods.collect()
}

/// Decides the number of region servers for now, if `declared` is the wanted number and the pods
/// own `regions`.
pub(super) fn for_now(
    observed: &Observed,
    declared: u32,
    regions: Option<&HashMap<String, u32>>,
) -> ForNow {
    let running = observed.replicas(RoleName::RegionServer).unwrap_or(declared);
    let wait = |reason| ForNow { region_servers: running, waits_for: Some(reason) };
    let as_declared = ForNow { region_servers: declared, waits_for: None };
    if running <= declared {
        return as_declared;
    }
    let Some(regions) = regions else {
        return wait("no master is active to move regions off surplus pods".to_owned());
    };
    let left = |member: &Member| regions.get(&member.uid).copied().unwrap_or(0);
    let mut surplus =
        observed.of_role(RoleName::RegionServer).filter(|(name, _)| is_surplus(name, declared));
    match surplus.find(|(_, member)| left(member) > 0) {
        Some((name, member)) => {
            wait(format!("{name} is being drained: it still has {} regions", left(member)))
        }
        None => as_declared,
    }
}

fn is_surplus(pod: &str, declared: u32) -> bool {
    names::index(pod).is_some_and(|index| index >= declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(running: u32) -> Observed {
        let mut observed = Observed::default();
        observed.replicas.insert(RoleName::RegionServer, running);
        for index in 0..running {
            let member = Member {
                role: Some(RoleName::RegionServer),
                uid: format!("u{index}"),
                rack: (index > 0).then(|| "z1".to_owned()),
                ..Member::default()
            };
            observed.members.insert(names::pod("demo", RoleName::RegionServer, index), member);
        }
        observed
    }

    fn regions(of: &[(&str, u32)]) -> HashMap<String, u32> {
        of.iter().map(|(uid, count)| ((*uid).to_owned(), *count)).collect()
    }

    #[test]
    fn surplus_pods_are_drained_and_go_only_when_they_are_empty() {
        let drained = |count| for_now(&observed(5), 3, Some(&regions(&[("u0", 9), ("u4", count)])));
        let waiting = drained(2);
        assert_eq!(waiting.region_servers, 5);
        let reason = waiting.waits_for.unwrap();
        assert!(reason.starts_with("demo-regionserver-4") && reason.contains('2'), "{reason}");
        assert_eq!(drained(0), ForNow { region_servers: 3, waits_for: None });
    }

    #[test]
    fn nothing_goes_while_no_master_answers_and_scaling_out_waits_for_nobody() {
        assert_eq!(for_now(&observed(5), 3, None).region_servers, 5);
        assert_eq!(for_now(&observed(3), 5, None), ForNow { region_servers: 5, waits_for: None });
    }

    #[test]
    fn the_report_to_the_master_has_racks_and_draining_pods() {
        let pods = known(&observed(3), 2);
        let pods: Vec<_> = pods.iter().map(|pod| (pod.rack.as_str(), pod.draining)).collect();
        assert_eq!(pods, [("", false), ("z1", false), ("z1", true)]);
    }
}
