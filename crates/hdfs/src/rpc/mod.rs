//! Hadoop's RPC, version 9: calls to NameNodes and to the IPC ports of DataNodes.
//!
//! Uses simple authentication: the server believes the user's name. Kerberos and tokens would be
//! added where [`frame::put_preamble`] writes that there is no authentication.

mod connection;
pub(crate) mod frame;

pub(crate) use connection::{Connection, ConnectionOptions, connect, until_unreachable};

/// The supported protocols, by the names of their Java interfaces.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Protocol {
    /// Clients to NameNodes.
    Client,
    /// DataNodes to NameNodes. It is used to report the result of a block recovery.
    DataNode,
    /// Clients to DataNodes.
    ClientDataNode,
    /// DataNodes to each other. It is used to recover a block.
    InterDataNode,
}

// === impl Protocol ===

impl Protocol {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "org.apache.hadoop.hdfs.protocol.ClientProtocol",
            Self::DataNode => "org.apache.hadoop.hdfs.server.protocol.DatanodeProtocol",
            Self::ClientDataNode => "org.apache.hadoop.hdfs.protocol.ClientDatanodeProtocol",
            Self::InterDataNode => "org.apache.hadoop.hdfs.server.protocol.InterDatanodeProtocol",
        }
    }
}
