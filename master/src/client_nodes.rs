//! The nodes by which stock HBase clients find the cluster.
//!
//! They are rewritten, not ephemeral: while no master lives, clients still find the region
//! servers.

use basalt_hbase_rpc::znode;
use basalt_model::ServerName;
use basalt_zk::Op;

use crate::ledger;

/// The nodes below one parent, `/hbase` by default.
#[derive(Clone, Debug)]
pub(crate) struct ClientNodes {
    parent: String,
}

// === impl ClientNodes ===

impl ClientNodes {
    pub(crate) fn below(parent: &str) -> Self {
        Self { parent: parent.trim_end_matches('/').to_owned() }
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

    /// The node of the server that is asked for the meta table.
    pub(crate) fn meta_server(&self) -> String {
        format!("{}/{}", self.parent, znode::META_SERVER)
    }

    /// Names the active master.
    pub(crate) fn write_master(&self, server: &ServerName, info_port: u16) -> Op {
        ledger::overwrite(self.master(), znode::encode_master(server, Some(info_port)))
    }

    /// Names the server that is asked for the meta table.
    pub(crate) fn write_meta_server(&self, server: &ServerName) -> Op {
        ledger::overwrite(self.meta_server(), znode::encode_meta_server(server))
    }
}

/// Which server is to be asked for the meta table: the present one while it lives, else any region
/// server, else the master. All of them serve it.
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
    fn the_meta_server_stays_while_it_lives() {
        let (a, b, master) = (server("a"), server("b"), server("m"));
        let both = [a.clone(), b.clone()];
        assert_eq!(choose_meta_server(Some(&b), both.iter(), &master), b);
        assert_eq!(choose_meta_server(Some(&master), both.iter(), &master), a);
        assert_eq!(choose_meta_server(Some(&b), [a.clone()].iter(), &master), a);
        assert_eq!(choose_meta_server(Some(&b), [].iter(), &master), master);
    }
}
