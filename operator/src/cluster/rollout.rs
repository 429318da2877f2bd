//! Decides which pod may be replaced next. Pure.
//!
//! A pod is replaced by evicting it: its process hands over when it is asked to stop, and the
//! StatefulSet creates the pod again in its current form. Roles are replaced in order: the
//! coordinator's members with the leader last, masters with the active one last, region servers
//! rack by rack. One pod is replaced at a time, and only while all others of its role serve. Up to
//! `maxUnavailable` region servers are replaced at a time, if they are in one rack. The decision
//! depends only on what is observed, so another operator can continue where this one stopped.

use std::time::Duration;

use basalt_api::ValidatedCluster;
use basalt_api::role_file::RoleName;

use super::observe::{Member, Observed};
use crate::names;

/// The next step of a rollout.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum RolloutStep {
    /// All pods are up to date.
    Done,
    /// Something is in progress.
    Wait {
        /// What the rollout waits for.
        reason: String,
    },
    /// This pod must be replaced.
    Replace {
        /// Its name.
        pod: String,
        /// Its uid, which a replacement does not have.
        uid: String,
    },
    /// This pod must be replaced, but its disruption budget does not allow it now.
    Refused {
        /// The API server's answer.
        reason: String,
        /// When to ask again.
        pause: Duration,
    },
    /// Objects that the cluster needs belong to others. Nothing is done.
    Conflict {
        /// The objects and their owners.
        reason: String,
    },
    /// The API server rejected a request, or did not answer.
    Failed {
        /// The request and the reason.
        reason: String,
    },
}

/// Decides the next step for a cluster with the desired state `cluster`.
pub(crate) fn next(observed: &Observed, cluster: &ValidatedCluster) -> RolloutStep {
    for role in names::ROLES {
        let step = next_of_role(observed, role, cluster);
        if step != RolloutStep::Done {
            return step;
        }
    }
    RolloutStep::Done
}

fn next_of_role(observed: &Observed, role: RoleName, cluster: &ValidatedCluster) -> RolloutStep {
    if role == RoleName::RegionServer && observed.active_master().is_none() {
        // Without an active master, the regions of a server that stops are not moved.
        return RolloutStep::Wait { reason: "no master is active".to_owned() };
    }
    let members: Vec<(&String, &Member)> = observed.of_role(role).collect();
    let declared = cluster.replicas(role);
    let at_once = match role {
        RoleName::RegionServer => cluster.spec.region_servers.max_unavailable as usize,
        _ => 1,
    };
    let serves = |member: &Member| member.serves && member.is_ready && !member.is_leaving;
    let out: Vec<_> = members.iter().filter(|(_, member)| !serves(member)).collect();
    let wait_for = |(name, member): &&(&String, &Member)| {
        let what = if member.is_leaving { "is terminating" } else { "does not serve yet" };
        RolloutStep::Wait { reason: format!("{name} {what}") }
    };
    let replace = |(name, member): &(&String, &Member)| RolloutStep::Replace {
        pod: (*name).clone(),
        uid: member.uid.clone(),
    };
    if let Some(leaving) = out.iter().find(|(_, member)| member.is_leaving)
        && out.len() >= at_once
    {
        return wait_for(leaving);
    }
    // Replacing a pod that does not serve costs nothing, and its new form may repair it.
    let is_broken = |member: &Member| {
        !member.is_current && !member.is_leaving && !member.serves && !member.is_ready
    };
    if let Some(broken) = out.iter().find(|(_, member)| is_broken(member)) {
        return replace(broken);
    }
    if members.len() != declared as usize {
        let reason = format!("{} of {declared} pods of role {role} exist", members.len());
        return RolloutStep::Wait { reason };
    }
    // While one pod is out, only another pod of the same rack may be replaced.
    let rack = out.first().map(|(_, member)| &member.rack);
    let may_go = |member: &Member| {
        out.len() < at_once && serves(member) && rack.is_none_or(|rack| *rack == member.rack)
    };
    let stale = members.iter().filter(|(_, member)| !member.is_current && may_go(member));
    // Rack by rack, and in each rack the highest first, as Kubernetes does it. The leader comes
    // last.
    let order = |(name, member): &&(&String, &Member)| {
        (!member.leads, member.rack.clone(), name.len(), (*name).clone())
    };
    match stale.max_by_key(order) {
        Some(next) => replace(next),
        None => out.first().map_or(RolloutStep::Done, wait_for),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Observed {
        let mut observed = Observed::default();
        for (role, count) in
            [(RoleName::Coordinator, 3), (RoleName::Master, 2), (RoleName::RegionServer, 3)]
        {
            for index in 0..count {
                let name = names::pod("demo", role, index);
                let member = Member {
                    role: Some(role),
                    uid: format!("{name}-0"),
                    is_ready: true,
                    is_current: true,
                    serves: true,
                    leads: role != RoleName::RegionServer && index == 1,
                    ..Member::default()
                };
                observed.members.insert(name, member);
            }
        }
        observed
    }

    fn declared(max_unavailable: u32) -> ValidatedCluster {
        let text = include_str!("../../../examples/cluster.yaml");
        let manifests = basalt_api::Manifests::from_yaml("m", text).unwrap();
        let mut cluster = manifests.clusters[0].clone();
        cluster.spec.region_servers.max_unavailable = max_unavailable;
        basalt_api::validate(&cluster, &[]).unwrap()
    }

    fn set(observed: &mut Observed, change: impl Fn(&mut Member)) {
        observed.members.values_mut().for_each(change);
    }

    /// Replaces the pods that `next` chooses until nothing is left to do.
    fn roll(mut observed: Observed) -> Vec<String> {
        let mut order = Vec::new();
        loop {
            match next(&observed, &declared(1)) {
                RolloutStep::Done => return order,
                RolloutStep::Replace { pod, .. } => {
                    let member = observed.members.get_mut(&pod).unwrap();
                    let (role, led) = (member.role, member.leads);
                    (member.is_current, member.leads) = (true, false);
                    let mut others = observed.members.iter_mut();
                    let next = others.find(|(name, other)| other.role == role && **name != pod);
                    if led && let Some((_, next)) = next {
                        next.leads = true;
                    }
                    order.push(pod);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_cluster_as_it_is_written_is_left_alone() {
        assert_eq!(next(&cluster(), &declared(1)), RolloutStep::Done);
    }

    #[test]
    fn everything_is_rolled_in_order_and_leaders_last() {
        let mut observed = cluster();
        set(&mut observed, |member| member.is_current = false);
        let order: Vec<String> =
            roll(observed).iter().map(|name| name.replace("demo-", "")).collect();
        assert_eq!(
            order,
            [
                "coordinator-2",
                "coordinator-0",
                "coordinator-1",
                "master-0",
                "master-1",
                "regionserver-2",
                "regionserver-1",
                "regionserver-0",
            ]
        );
    }

    #[test]
    fn nobody_is_replaced_while_another_of_the_role_or_of_one_before_is_missing() {
        let mut observed = cluster();
        set(&mut observed, |member| member.is_current = false);
        let one_of = |observed: &Observed, name: &str, change: fn(&mut Member)| {
            let mut changed = observed.clone();
            change(changed.members.get_mut(name).unwrap());
            next(&changed, &declared(1))
        };
        let leaving = |m: &mut Member| m.is_leaving = true;
        assert!(matches!(
            one_of(&observed, "demo-coordinator-0", leaving),
            RolloutStep::Wait { .. }
        ));
        let mut rolled = observed.clone();
        set(&mut rolled, |m| m.is_current = m.role != Some(RoleName::RegionServer));
        let silent = |m: &mut Member| (m.is_ready, m.serves) = (false, false);
        for waiting in ["demo-coordinator-2", "demo-master-0"] {
            assert!(
                matches!(one_of(&rolled, waiting, silent), RolloutStep::Wait { .. }),
                "{waiting}"
            );
        }
        rolled.members.remove("demo-regionserver-1");
        assert!(matches!(next(&rolled, &declared(1)), RolloutStep::Wait { .. }));
    }

    #[test]
    fn without_an_active_master_no_region_server_is_replaced() {
        let mut observed = cluster();
        let of_role = |m: &Member| m.role == Some(RoleName::RegionServer);
        set(&mut observed, |m| m.is_current = !of_role(m));
        assert!(matches!(next(&observed, &declared(1)), RolloutStep::Replace { .. }));
        set(&mut observed, |m| m.leads = false);
        assert!(matches!(next(&observed, &declared(1)), RolloutStep::Wait { .. }));
    }

    #[test]
    fn a_member_that_is_ready_and_serves_nobody_stops_the_roll_of_the_coordinator() {
        let mut observed = cluster();
        set(&mut observed, |member| member.is_current = false);
        observed.members.get_mut("demo-coordinator-2").unwrap().serves = false;
        assert!(matches!(next(&observed, &declared(1)), RolloutStep::Wait { .. }));
    }

    #[test]
    fn a_broken_new_form_is_replaced_without_waiting_for_it() {
        let mut observed = cluster();
        let member = observed.members.get_mut("demo-regionserver-0").unwrap();
        (member.is_current, member.is_ready, member.serves) = (false, false, false);
        let step = next(&observed, &declared(1));
        assert!(matches!(step, RolloutStep::Replace { pod, .. } if pod == "demo-regionserver-0"));
    }

    #[test]
    fn as_many_region_servers_go_as_may_be_unavailable_if_they_stand_in_one_rack() {
        let mut observed = cluster();
        for (index, rack) in [(0, "z1"), (1, "z2"), (2, "z1")] {
            let name = names::pod("demo", RoleName::RegionServer, index);
            let member = observed.members.get_mut(&name).unwrap();
            (member.is_current, member.rack) = (false, Some(rack.to_owned()));
        }
        let replaced = |observed: &Observed| match next(observed, &declared(2)) {
            RolloutStep::Replace { pod, .. } => pod,
            other => format!("{other:?}"),
        };
        assert_eq!(replaced(&observed), "demo-regionserver-1");
        observed.members.get_mut("demo-regionserver-1").unwrap().is_leaving = true;
        assert!(
            replaced(&observed).contains("regionserver-1 is terminating"),
            "another rack waits"
        );

        let member = observed.members.get_mut("demo-regionserver-1").unwrap();
        (member.is_leaving, member.is_current) = (false, true);
        assert_eq!(replaced(&observed), "demo-regionserver-2");
        observed.members.get_mut("demo-regionserver-2").unwrap().is_leaving = true;
        assert_eq!(replaced(&observed), "demo-regionserver-0");
        observed.members.get_mut("demo-regionserver-0").unwrap().is_leaving = true;
        assert!(replaced(&observed).contains("is terminating"));
    }
}
