//! The services that a connection may request.

use std::fmt;
use std::str::FromStr;

/// The service that a connection is opened for. All its calls go to this service.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Service {
    /// Rows: get, mutate, scan. On region servers, and on masters for the meta table.
    Client,
    /// The regions of one region server.
    Admin,
    /// Tables and the cluster. On masters.
    Master,
    /// The location of the cluster. On masters and region servers.
    ClientMeta,
    /// Repairs. On masters.
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
