//! The nodes through which stock HBase clients find the cluster.
//!
//! They are overwritten, not ephemeral, so clients still find the region servers while no master
//! lives.

use basalt_hbase_rpc::znode;
use basalt_model::ServerName;
use basalt_zk::Op;

use crate::epoch_guarded_store;

/// The nodes below one parent (`/hbase` by default), as one master writes them.
#[derive(Clone, Debug)]
pub(crate) struct ClientNodes {
    parent: String,
    writer: ServerName,
}

// === impl ClientNodes ===

impl ClientNodes {
    pub(crate) fn below(parent: &str, writer: ServerName) -> Self {
        Self { parent: parent.trim_end_matches('/').to_owned(), writer }
    }

    /// The parent itself.
    pub(crate) fn parent(&self) -> &str {
        &self.parent
    }

    /// The node of the cluster's id.
    pub(crate) fn cluster_id(&self) -> String {
        format!("{}/{}", self.parent, znode::CLUSTER_ID)
    }

    /// The node of the active master.
    pub(crate) fn master(&self) -> String {
        format!("{}/{}", self.parent, znode::MASTER)
    }

    /// The node that names the server of the meta table.
    pub(crate) fn meta_server(&self) -> String {
        format!("{}/{}", self.parent, znode::META_SERVER)
    }

    /// Publishes the cluster's id.
    pub(crate) fn write_cluster_id(&self, cluster_id: &str) -> Op {
        self.write(self.cluster_id(), &znode::encode_cluster_id(cluster_id))
    }

    /// Names the writer as the active master.
    pub(crate) fn write_master(&self, info_port: u16) -> Op {
        self.write(self.master(), &znode::encode_master(&self.writer, Some(info_port)))
    }

    /// Publishes the server of the meta table.
    pub(crate) fn write_meta_server(&self, server: &ServerName) -> Op {
        self.write(self.meta_server(), &znode::encode_meta_server(server))
    }

    fn write(&self, node: String, data: &[u8]) -> Op {
        epoch_guarded_store::overwrite(node, znode::written_by(&self.writer, data))
    }
}

/// Chooses the server of the meta table: the present one while it lives, otherwise any region
/// server, otherwise the master. All of them serve it.
pub(crate) fn choose_meta_server<'a>(
    present: Option<&ServerName>,
    mut living: impl Iterator<Item = &'a ServerName>,
    master: &ServerName,
) -> ServerName {
    let mut first = None;
    let found = living.find(|server| {
        first.get_or_insert(*server);
        Some(*server) == present
    });
    found.or(first).unwrap_or(master).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::server;

    #[test]
    fn what_clients_read_names_its_writer() {
        let nodes = ClientNodes::below("/hbase/", server("m"));
        let written = [
            nodes.write_cluster_id("c1"),
            nodes.write_master(16010),
            nodes.write_meta_server(&server("a")),
        ];
        let names = ["hbaseid", "master", "meta-region-server"];
        for (op, name) in written.into_iter().zip(names) {
            let Op::SetData { path, data, .. } = op else { panic!("{op:?}") };
            assert_eq!(path, format!("/hbase/{name}"));
            assert_eq!(data.first(), Some(&0xff), "{name}");
        }
    }

    #[test]
    fn the_meta_server_stays_while_it_lives() {
        let (a, b, master) = (server("a"), server("b"), server("m"));
        let both = [a.clone(), b.clone()];
        assert_eq!(choose_meta_server(Some(&b), both.iter(), &master), b);
        assert_eq!(choose_meta_server(Some(&master), both.iter(), &master), a);
        assert_eq!(choose_meta_server(Some(&b), [a.clone()].iter(), &master), a);
        assert_eq!(choose_meta_server(Some(&b), [].iter(), &master), master);
    }
}
