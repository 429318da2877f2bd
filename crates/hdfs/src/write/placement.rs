//! Decides where the replicas of a new block should be placed. Pure.
//!
//! A store file has a replica on this machine, where it is read. A log has none there if there are
//! enough other DataNodes, because it is needed when its machine is dead. The NameNode makes the
//! final decision.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::data_node::transfer_address;
use crate::live_nodes::Known;
use crate::pb;

/// The purpose of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// It is read where it was written.
    Store,
    /// It is read when the machine that wrote it is dead.
    Log,
}

/// The placement of a block that is requested from the NameNode.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wish {
    /// DataNodes that must not be used.
    pub(crate) excluded: Vec<pb::DatanodeInfo>,
    /// DataNodes that are used if possible, as `ip:port`.
    pub(crate) favored: Vec<Arc<str>>,
    /// Avoid the DataNode that the NameNode finds on this machine, if there are enough others.
    pub(crate) avoids_own: bool,
    /// If there are fewer replicas than this, or the wish is rejected, the next wish is tried.
    pub(crate) replicas_min: usize,
}

/// What is known about the DataNodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nodes<'a> {
    /// The live ones.
    pub(super) live: &'a Known,
    /// Those that have just failed for this block.
    pub(super) failed: &'a [pb::DatanodeInfo],
    /// Those that recently failed or were slow.
    pub(super) troubled: &'a [pb::DatanodeInfo],
    /// The addresses of those whose machines may be gone.
    pub(super) suspected: &'a BTreeSet<Arc<str>>,
}

/// How many replicas a block should have, and how many it needs at least to be begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replicas {
    pub(super) wanted: usize,
    pub(super) min: usize,
}

/// The wishes for a block, in the order in which they are tried. The last one excludes only
/// DataNodes that have just failed.
pub(super) fn wishes(purpose: Purpose, nodes: Nodes<'_>, replicas: Replicas) -> Vec<Wish> {
    let is_in = |list: &[pb::DatanodeInfo], node: &pb::DatanodeInfo| {
        list.iter().any(|listed| listed.id.uuid == node.id.uuid)
    };
    let own = nodes.live.own.as_ref();
    let mut troubled = nodes.failed.to_vec();
    troubled.extend(nodes.troubled.iter().filter(|node| !is_in(nodes.failed, node)).cloned());
    let better_without = nodes.live.nodes.iter().filter(|node| {
        let is_own = own.is_some_and(|own| own.id.uuid == node.id.uuid);
        let is_unwanted = (is_own && purpose == Purpose::Log)
            || nodes.suspected.contains(&transfer_address(node));
        is_unwanted && !is_in(&troubled, node)
    });
    let better_without: Vec<_> = better_without.cloned().collect();
    let usable = nodes.live.nodes.iter().filter(|node| !is_in(&troubled, node)).count();

    let favored = own.filter(|own| purpose == Purpose::Store && !is_in(&troubled, own));
    let common = Wish {
        excluded: nodes.failed.to_vec(),
        favored: favored.map(transfer_address).into_iter().collect(),
        avoids_own: purpose == Purpose::Log,
        replicas_min: replicas.min,
    };
    let mut wishes = Vec::with_capacity(3);
    if !better_without.is_empty() && usable - better_without.len() >= replicas.wanted {
        let excluded = [&troubled[..], &better_without].concat();
        // Avoiding them is not worth one replica less.
        wishes.push(Wish { excluded, replicas_min: replicas.wanted, ..common.clone() });
    }
    if troubled.len() > nodes.failed.len() {
        wishes.push(Wish { excluded: troubled, ..common.clone() });
    }
    wishes.push(common);
    wishes
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Replicas = Replicas { wanted: 3, min: 2 };

    fn node(number: u32) -> pb::DatanodeInfo {
        let id = pb::DatanodeId {
            ip_address: format!("10.0.0.{number}"),
            uuid: number.to_string(),
            transfer_port: 1,
            ..Default::default()
        };
        pb::DatanodeInfo { id, ..Default::default() }
    }

    /// DataNodes 1 to `count` are alive; the first is on this machine.
    fn live(count: u32) -> Known {
        Known { nodes: (1..=count).map(node).collect(), own: Some(node(1)), ..Known::default() }
    }

    fn wished(
        purpose: Purpose,
        live: &Known,
        failed: &[u32],
        troubled: &[u32],
        suspected: &[u32],
    ) -> Vec<Wish> {
        let nodes = |numbers: &[u32]| numbers.iter().copied().map(node).collect::<Vec<_>>();
        let (failed, troubled) = (nodes(failed), nodes(troubled));
        let suspected = nodes(suspected).iter().map(transfer_address).collect();
        let nodes = Nodes { live, failed: &failed, troubled: &troubled, suspected: &suspected };
        wishes(purpose, nodes, THREE)
    }

    /// The last numbers of the excluded DataNodes, for each wish.
    fn excluded(wishes: &[Wish]) -> Vec<Vec<&str>> {
        let numbers = |wish: &'_ Wish| wish.excluded.len();
        assert!(wishes.iter().rev().map(numbers).is_sorted(), "each excludes less");
        wishes
            .iter()
            .map(|wish| wish.excluded.iter().map(|node| &*node.id.uuid).collect())
            .collect()
    }

    #[test]
    fn a_store_file_is_put_on_our_own_machine() {
        let wishes = wished(Purpose::Store, &live(3), &[], &[], &[]);
        let own = Wish { favored: vec!["10.0.0.1:1".into()], replicas_min: 2, ..Wish::default() };
        assert_eq!(wishes, [own]);
    }

    #[test]
    fn a_store_file_is_not_put_on_a_data_node_of_ours_that_is_in_trouble() {
        for (failed, troubled) in [(&[1][..], &[][..]), (&[], &[1])] {
            let wishes = wished(Purpose::Store, &live(4), failed, troubled, &[]);
            assert!(wishes.iter().all(|wish| wish.favored.is_empty()));
        }
    }

    #[test]
    fn a_log_is_kept_off_our_own_machine_if_there_are_enough_others() {
        let wishes = wished(Purpose::Log, &live(4), &[], &[], &[]);
        assert_eq!(excluded(&wishes), [vec!["1"], vec![]]);
        assert_eq!(wishes[0].replicas_min, 3, "but not with fewer replicas for that");
        assert!(wishes.iter().all(|wish| wish.avoids_own && wish.favored.is_empty()));
        assert_eq!(excluded(&wished(Purpose::Log, &live(3), &[], &[], &[])), [vec![""; 0]]);
        let one_in_trouble = wished(Purpose::Log, &live(4), &[], &[4], &[]);
        assert_eq!(excluded(&one_in_trouble), [vec!["4"], vec![]]);
    }

    #[test]
    fn a_machine_that_may_be_gone_gets_nothing_if_there_are_enough_others() {
        let store = wished(Purpose::Store, &live(4), &[], &[], &[2]);
        assert_eq!(excluded(&store), [vec!["2"], vec![]]);
        assert_eq!(excluded(&wished(Purpose::Store, &live(3), &[], &[], &[2])), [vec![""; 0]]);
        let log = wished(Purpose::Log, &live(5), &[], &[], &[2]);
        assert_eq!(excluded(&log), [vec!["1", "2"], vec![]]);
    }

    #[test]
    fn what_has_just_failed_stays_excluded() {
        let wishes = wished(Purpose::Log, &live(6), &[2], &[2, 3], &[]);
        assert_eq!(excluded(&wishes), [vec!["2", "3", "1"], vec!["2", "3"], vec!["2"]]);
    }

    #[test]
    fn without_a_report_the_name_node_chooses() {
        let nothing = Known::default();
        let wishes = wished(Purpose::Store, &nothing, &[], &[], &[7]);
        assert_eq!(wishes, [Wish { replicas_min: 2, ..Wish::default() }]);
    }
}
