//! Hadoop's RPC, version 9: calls to NameNodes and to the IPC ports of DataNodes.
//!
//! Simple authentication: the server believes the user's name. Kerberos and tokens would go where
//! [`frame::put_preamble`] writes that there is none.

mod connection;
pub(crate) mod frame;

pub(crate) use connection::{Connection, ConnectionOptions, connect, until_unreachable};

/// The protocols that are spoken, by the names of their Java interfaces.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Protocol {
    /// Clients to NameNodes.
    Client,
    /// DataNodes to NameNodes: who recovers a block tells the result by it.
    DataNode,
    /// Clients to DataNodes.
    ClientDataNode,
    /// DataNodes to each other: who recovers a block asks the others by it.
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
