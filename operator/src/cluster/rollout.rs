//! Which pod may be replaced next: pure.
//!
//! A pod is replaced by deleting it: its process hands over when it is asked to stop, and the
//! StatefulSet makes it anew as it is written now. One pod at a time, and only while all others of
//! the cluster serve. Roles go in order: the coordinator's members with the leader last, masters
//! with the active one last, region servers. What is decided depends on nothing but what is
//! observed, so whoever looks next goes on where the last one stopped.

use basalt_api::role_file::RoleName;

use super::observe::{Member, Observed};
use crate::names;

/// What may be done now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Everything is as it is written.
    Done,
    /// Something is under way.
    Wait {
        /// What is waited for.
        reason: String,
    },
    /// This pod is to be deleted.
    Replace {
        /// Its name.
        pod: String,
        /// Its uid: not the one that comes after it.
        uid: String,
    },
}

/// Decides for a cluster of which `declared` says how many pods of each role there should be.
pub(crate) fn next(observed: &Observed, declared: impl Fn(RoleName) -> u32) -> Step {
    for role in names::ROLES {
        let step = next_of_role(observed, role, declared(role));
        if step != Step::Done {
            return step;
        }
    }
    Step::Done
}

fn next_of_role(observed: &Observed, role: RoleName, declared: u32) -> Step {
    let members: Vec<(&String, &Member)> = observed.of_role(role).collect();
    let wait = |reason: String| Step::Wait { reason };
    if let Some((name, _)) = members.iter().find(|(_, member)| member.is_leaving) {
        return wait(format!("{name} is leaving"));
    }
    // One that does not serve anyway costs nothing, and its new form may be the mend.
    let serves_nobody = |member: &Member| !member.serves && !member.is_ready;
    let broken = members.iter().find(|(_, member)| !member.is_current && serves_nobody(member));
    if let Some((name, member)) = broken {
        return Step::Replace { pod: (*name).clone(), uid: member.uid.clone() };
    }
    if members.len() != declared as usize {
        return wait(format!("there are {} of {declared} pods of role {role}", members.len()));
    }
    let idle = members.iter().find(|(_, member)| !member.serves || !member.is_ready);
    if let Some((name, _)) = idle {
        return wait(format!("{name} does not serve yet"));
    }
    let stale = members.iter().filter(|(_, member)| !member.is_current);
    // The highest first, as Kubernetes does it; whoever leads comes last.
    match stale.max_by_key(|(name, member)| (!member.leads, name.len(), name.as_str())) {
        Some((name, member)) => Step::Replace { pod: (*name).clone(), uid: member.uid.clone() },
        None => Step::Done,
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

    fn declared(role: RoleName) -> u32 {
        if role == RoleName::Master { 2 } else { 3 }
    }

    fn set(observed: &mut Observed, change: impl Fn(&mut Member)) {
        observed.members.values_mut().for_each(change);
    }

    /// Replaces what it is told to, until there is nothing left to do.
    fn roll(mut observed: Observed) -> Vec<String> {
        let mut order = Vec::new();
        loop {
            match next(&observed, declared) {
                Step::Done => return order,
                Step::Wait { reason } => panic!("{reason}"),
                Step::Replace { pod, .. } => {
                    let member = observed.members.get_mut(&pod).unwrap();
                    (member.is_current, member.leads) = (true, false);
                    order.push(pod);
                }
            }
        }
    }

    #[test]
    fn a_cluster_as_it_is_written_is_left_alone() {
        assert_eq!(next(&cluster(), declared), Step::Done);
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
            next(&changed, declared)
        };
        let leaving = |m: &mut Member| m.is_leaving = true;
        assert!(matches!(one_of(&observed, "demo-coordinator-0", leaving), Step::Wait { .. }));
        let mut rolled = observed.clone();
        set(&mut rolled, |m| m.is_current = m.role != Some(RoleName::RegionServer));
        let silent = |m: &mut Member| (m.is_ready, m.serves) = (false, false);
        for waiting in ["demo-coordinator-2", "demo-master-0"] {
            assert!(matches!(one_of(&rolled, waiting, silent), Step::Wait { .. }), "{waiting}");
        }
        rolled.members.remove("demo-regionserver-1");
        assert!(matches!(next(&rolled, declared), Step::Wait { .. }));
    }

    #[test]
    fn a_member_that_is_ready_and_serves_nobody_stops_the_roll_of_the_coordinator() {
        let mut observed = cluster();
        set(&mut observed, |member| member.is_current = false);
        observed.members.get_mut("demo-coordinator-2").unwrap().serves = false;
        assert!(matches!(next(&observed, declared), Step::Wait { .. }));
    }

    #[test]
    fn a_broken_new_form_is_replaced_without_waiting_for_it() {
        let mut observed = cluster();
        let member = observed.members.get_mut("demo-regionserver-0").unwrap();
        (member.is_current, member.is_ready, member.serves) = (false, false, false);
        let step = next(&observed, declared);
        assert!(matches!(step, Step::Replace { pod, .. } if pod == "demo-regionserver-0"));
    }
}
