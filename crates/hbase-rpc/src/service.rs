//! The services that a connection may ask for.

use std::fmt;
use std::str::FromStr;

/// What a connection is opened for; its calls go to this service alone.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Service {
    /// Rows: get, mutate, scan. On region servers, and on masters for the meta table.
    Client,
    /// The regions of one region server.
    Admin,
    /// Tables and the cluster; on masters.
    Master,
    /// Where the cluster is; on masters and region servers.
    ClientMeta,
    /// Repairs; on masters.
    Hbck,
}

impl Service {
    const ALL: [Self; 5] = [Self::Client, Self::Admin, Self::Master, Self::ClientMeta, Self::Hbck];

    /// Its name in a connection's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "ClientService",
            Self::Admin => "AdminService",
            Self::Master => "MasterService",
            Self::ClientMeta => "ClientMetaService",
            Self::Hbck => "HbckService",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|service| service.name() == name).ok_or(())
    }
}
