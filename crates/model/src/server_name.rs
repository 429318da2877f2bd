//! Server names, each of which identifies one run of a server process.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Identifies a server process. A process that restarts at the same address has a new name.
///
/// Written `host,port,startcode`, as in HBase.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServerName {
    /// The host at which clients reach it.
    pub host: String,
    /// The port of its HBase RPC.
    pub port: u16,
    /// When it started, in milliseconds since 1970.
    pub start_code: u64,
}

// === impl ServerName ===

impl ServerName {
    /// The `host:port` of its HBase RPC.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{},{},{}", self.host, self.port, self.start_code)
    }
}

impl FromStr for ServerName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = name.split(',');
            let host = parts.next().filter(|host| !host.is_empty())?.to_owned();
            let port = parts.next()?.parse().ok()?;
            let start_code = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(Self { host, port, start_code })
        };
        parse().ok_or_else(|| Error::BadServerName { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_reads_as_it_was_written() {
        let name: ServerName = "rs-0.demo,16020,1700000000000".parse().unwrap();
        assert_eq!(name.address(), "rs-0.demo:16020");
        assert_eq!(name.to_string(), "rs-0.demo,16020,1700000000000");
        for bad in ["", "host", "host,1", "host,1,2,3", ",1,2", "host,x,2", "host,99999,2"] {
            assert!(bad.parse::<ServerName>().is_err(), "{bad} was taken");
        }
    }
}
