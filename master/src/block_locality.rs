//! The storage nodes that hold the blocks of regions, as region servers have reported them to this
//! master.
//!
//! This is only a preference. A new master knows nothing of it, and decides without it.

use std::collections::BTreeMap;

use basalt_cluster::pb;
use basalt_fs::NodeName;
use basalt_model::{EncodedRegionName, ServerName};

/// Block locality of all regions. Its size is bounded by the numbers of servers and regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterLocality {
    /// The storage node on the machine of each server.
    nodes: BTreeMap<ServerName, NodeName>,
    regions: BTreeMap<EncodedRegionName, RegionPlaces>,
}

/// The nodes that hold the store files of one region.
#[derive(Clone, Debug, Default)]
struct RegionPlaces {
    bytes: u64,
    by_node: BTreeMap<NodeName, u64>,
}

/// How many nodes of a region are kept.
const NODES_MAX: usize = 8;

// === impl ClusterLocality ===

impl ClusterLocality {
    /// Records a message of `server`. Ignores regions that are not `known`.
    pub(crate) fn take_in(
        &mut self,
        server: &ServerName,
        word: &pb::Alive,
        known: impl Fn(&EncodedRegionName) -> bool,
    ) {
        match NodeName::reported(&word.node) {
            Some(node) => {
                self.nodes.insert(server.clone(), node);
            }
            None if !word.regions.is_empty() => {
                self.nodes.remove(server);
            }
            // The message carries no block locality.
            None => {}
        }
        for region in &word.regions {
            let Ok(digest) = <[u8; 16]>::try_from(&region.region[..]) else { continue };
            let name = EncodedRegionName::from_digest(digest);
            if known(&name) {
                let nodes = region.nodes.iter().take(NODES_MAX);
                let by_node = nodes
                    .filter_map(|one| Some((NodeName::reported(&one.node)?, one.bytes)))
                    .collect();
                self.regions.insert(name, RegionPlaces { bytes: region.bytes, by_node });
            }
        }
    }

    /// Forgets all other servers and regions.
    pub(crate) fn keep(
        &mut self,
        is_server: impl Fn(&ServerName) -> bool,
        is_region: impl Fn(&EncodedRegionName) -> bool,
    ) {
        self.nodes.retain(|server, _| is_server(server));
        self.regions.retain(|region, _| is_region(region));
    }

    /// The node on the machine of `server`.
    pub(crate) fn node_of(&self, server: &ServerName) -> Option<&NodeName> {
        self.nodes.get(server)
    }

    /// Those of `servers` that have a node on their machine, grouped by that node.
    pub(crate) fn servers_by_node<'a>(
        &'a self,
        servers: impl Iterator<Item = &'a ServerName>,
    ) -> BTreeMap<&'a NodeName, Vec<&'a ServerName>> {
        let mut by_node: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for server in servers {
            if let Some(node) = self.nodes.get(server) {
                by_node.entry(node).or_default().push(server);
            }
        }
        by_node
    }

    /// The nodes that have blocks of `region`, with the number of bytes.
    pub(crate) fn nodes_with(
        &self,
        region: &EncodedRegionName,
    ) -> impl Iterator<Item = (&NodeName, u64)> {
        let places = self.regions.get(region);
        places.into_iter().flat_map(|places| &places.by_node).map(|(node, bytes)| (node, *bytes))
    }

    /// How many bytes of `region` are on the machine of `server`, as far as is known. Otherwise 0.
    pub(crate) fn bytes_on(&self, region: &EncodedRegionName, server: &ServerName) -> u64 {
        let on_node = |node| self.regions.get(region)?.by_node.get(node).copied();
        self.nodes.get(server).and_then(on_node).unwrap_or(0)
    }

    /// The fraction of `region` that is on the machine of `server`, from 0 to 1. `None` if it is
    /// not known where any of the region is.
    pub(crate) fn share(&self, region: &EncodedRegionName, server: &ServerName) -> Option<f32> {
        let bytes = self.regions.get(region).map(|places| places.bytes).filter(|all| *all > 0)?;
        let share = self.bytes_on(region, server) as f64 / bytes as f64;
        Some(share.min(1.0) as f32)
    }
}

/// Fixtures for tests of decisions.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Each of `servers` has a node of its own name; `regions` have the given bytes on them.
    pub(crate) fn places(
        servers: &[ServerName],
        regions: &[(EncodedRegionName, &[(&ServerName, u64)])],
    ) -> ClusterLocality {
        let mut places = ClusterLocality::default();
        for server in servers {
            let word = pb::Alive { node: server.to_string(), ..Default::default() };
            places.take_in(server, &word, |_| true);
        }
        for (region, nodes) in regions {
            let nodes: Vec<_> = nodes
                .iter()
                .map(|(server, bytes)| pb::NodeBytes { node: server.to_string(), bytes: *bytes })
                .collect();
            let bytes = nodes.iter().map(|node| node.bytes).max().unwrap_or(0);
            let region = region.digest().to_vec();
            let blocks = pb::RegionBlocks { region, bytes, nodes };
            let server = &servers[0];
            let word =
                pb::Alive { node: server.to_string(), regions: vec![blocks], ..Default::default() };
            places.take_in(server, &word, |_| true);
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::server;

    fn region(number: u8) -> EncodedRegionName {
        EncodedRegionName::from_digest([number; 16])
    }

    /// A region's digest, its bytes, and how many of them each node has.
    type Lies<'a> = (&'a [u8], u64, &'a [(&'a str, u64)]);

    fn word(node: &str, regions: &[Lies<'_>]) -> pb::Alive {
        let regions = regions.iter().map(|(region, bytes, nodes)| pb::RegionBlocks {
            region: region.to_vec(),
            bytes: *bytes,
            nodes: nodes
                .iter()
                .map(|(node, bytes)| pb::NodeBytes { node: (*node).to_owned(), bytes: *bytes })
                .collect(),
        });
        let (server_name, node) = ("s".to_owned(), node.to_owned());
        pb::Alive { server_name, node, regions: regions.collect(), ..Default::default() }
    }

    #[test]
    fn what_servers_say_is_remembered_of_known_regions() {
        let mut places = ClusterLocality::default();
        let nodes: &[_] = &[("n1", 30), ("n2", 40)];
        let said = word("n1", &[(&[1; 16], 40, nodes), (&[2; 16], 40, nodes)]);
        places.take_in(&server("a"), &said, |name| *name == region(1));
        places.take_in(&server("b"), &word("n2", &[]), |_| true);
        assert_eq!(places.bytes_on(&region(1), &server("a")), 30);
        assert_eq!(places.share(&region(1), &server("a")), Some(0.75));
        assert_eq!(places.share(&region(1), &server("b")), Some(1.0));
        assert_eq!(places.share(&region(1), &server("c")), Some(0.0), "of it no node is known");
        assert_eq!(places.share(&region(2), &server("a")), None, "there is no such region");
        places.take_in(&server("a"), &word("", &[]), |_| true);
        assert_eq!(places.node_of(&server("a")), NodeName::reported("n1").as_ref());
        places.take_in(&server("a"), &word("", &[(&[1; 16], 40, nodes)]), |_| true);
        assert_eq!(places.node_of(&server("a")), None, "its node is gone");
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let mut places = ClusterLocality::default();
        let many: Vec<(String, u64)> = (0..100).map(|number| (format!("n{number}"), 1)).collect();
        let many: Vec<_> = many.iter().map(|(node, bytes)| (node.as_str(), *bytes)).collect();
        let endless = "n".repeat(1000);
        let said = word(
            &endless,
            &[(&[1; 15], 1, &[("n", 1)]), (&[1; 16], 0, &[("", 9)]), (&[2; 16], 1, &many)],
        );
        places.take_in(&server("a"), &said, |_| true);
        assert_eq!(places.node_of(&server("a")), None);
        assert_eq!(places.share(&region(1), &server("a")), None);
        assert_eq!(places.nodes_with(&region(1)).count(), 0);
        assert_eq!(places.nodes_with(&region(2)).count(), NODES_MAX);
    }

    #[test]
    fn servers_and_regions_that_are_gone_are_forgotten() {
        let mut places = ClusterLocality::default();
        let nodes: &[_] = &[("n", 1)];
        places.take_in(&server("a"), &word("n", &[(&[1; 16], 1, nodes)]), |_| true);
        places.take_in(&server("b"), &word("n", &[(&[2; 16], 1, nodes)]), |_| true);
        places.keep(|name| *name == server("b"), |name| *name == region(1));
        assert_eq!((places.node_of(&server("a")), places.nodes.len()), (None, 1));
        assert_eq!(places.share(&region(1), &server("b")), Some(1.0));
        assert_eq!(places.share(&region(2), &server("b")), None);
    }
}
