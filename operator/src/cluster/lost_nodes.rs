//! Decides which pods on lost nodes may be deleted by force. Pure.
//!
//! When a node is lost, Kubernetes asks its pods to terminate, but nothing answers. A StatefulSet
//! creates no replacement while the old pod may still run. The operator deletes the pod by force
//! once it is harmless: a region server that has been fenced, or a master, because every write of a
//! master is checked. It never deletes a coordinator member: two members with the same name would
//! have two votes.

use basalt_api::role_file::RoleName;
use basalt_cluster::pb;
use basalt_model::ServerName;

use super::observe::{Member, Observed};

/// The pods that may be deleted by force: name and uid.
pub(super) fn deletable(observed: &Observed) -> Vec<(String, String)> {
    let stuck = observed.members.iter().filter(|(_, m)| m.is_leaving && m.is_evicted);
    let deletable = stuck.filter(|(_, member)| match member.role {
        Some(RoleName::Master) => true,
        Some(RoleName::RegionServer) => is_fenced(member, &observed.recoveries),
        _ => false,
    });
    deletable.map(|(name, member)| (name.clone(), member.uid.clone())).collect()
}

/// Whether the regions of the server in this pod have been recovered. A recovery begins with the
/// fence.
fn is_fenced(member: &Member, recoveries: &[pb::RecoveryRecord]) -> bool {
    recoveries.iter().filter(|recovery| recovery.done).any(|recovery| {
        recovery.server_name.parse::<ServerName>().is_ok_and(|server| {
            Some(&server.host) == member.address.as_ref() && server.start_code >= member.started_ms
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(role: RoleName, is_evicted: bool, done: bool, start_code: u64) -> Observed {
        let member = Member {
            role: Some(role),
            uid: "u1".to_owned(),
            address: Some("10.244.1.9".to_owned()),
            started_ms: 5_000,
            is_leaving: true,
            is_evicted,
            ..Member::default()
        };
        let recovery = pb::RecoveryRecord {
            server_name: format!("10.244.1.9,16020,{start_code}"),
            done,
            ..Default::default()
        };
        Observed {
            members: [("pod".to_owned(), member)].into(),
            recoveries: vec![recovery],
            ..Observed::default()
        }
    }

    #[test]
    fn a_region_server_goes_once_it_is_fenced() {
        let may_go = |evicted, done, start_code| {
            !deletable(&observed(RoleName::RegionServer, evicted, done, start_code)).is_empty()
        };
        assert!(may_go(true, true, 6_000));
        assert!(!may_go(true, false, 6_000), "it is not fenced yet");
        assert!(!may_go(false, true, 6_000), "its node answers");
        assert!(!may_go(true, true, 4_000), "the recovery is of another at the same address");
    }

    #[test]
    fn a_master_goes_at_once_and_a_member_of_the_coordinator_never() {
        assert_eq!(deletable(&observed(RoleName::Master, true, false, 0)).len(), 1);
        assert!(deletable(&observed(RoleName::Coordinator, true, true, 6_000)).is_empty());
    }
}
