//! The cluster's feature level in the coordinator, and how a server joins under it.
//!
//! The level is raised in two steps. First, the record announces the next level. From then on no
//! server that does not know that level can register, because each registration checks the version
//! of the record that it was based on. Then the master reads the records of all live servers. If
//! all of them know the next level, it becomes the cluster's level. Otherwise the announcement is
//! withdrawn.

use std::time::Duration;

use basalt_model::FeatureLevel;
use basalt_zk::proto::{CreateMode, ErrorCode};
use basalt_zk::{Client, Op};
use bytes::Bytes;
use prost::Message as _;
use tokio::time::Instant;

use crate::{Error, Nodes, pb, records};

/// The cluster's feature level record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OnRecord {
    /// The cluster's level.
    pub level: FeatureLevel,
    /// The next level, if the cluster is being raised to it.
    pub raising_to: Option<FeatureLevel>,
    /// The version of the node.
    pub version: i32,
}

/// The pause before the record is read again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a waiting server logs that it waits.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

// === impl OnRecord ===

impl OnRecord {
    /// Reads the record. Creates it if the cluster was created by a release that knows no levels.
    ///
    /// # Errors
    /// The coordinator did not answer, or holds an invalid record.
    pub async fn read(client: &Client, nodes: &Nodes) -> Result<Self, Error> {
        let path = nodes.feature_level();
        loop {
            if let Some((data, stat)) = client.find_data(&path).await? {
                let record: pb::FeatureLevelRecord = records::decode("feature level", data)?;
                return Ok(Self {
                    level: FeatureLevel(record.level),
                    raising_to: (record.raising_to > 0).then_some(FeatureLevel(record.raising_to)),
                    version: stat.version,
                });
            }
            let lowest = encode(FeatureLevel::OLDEST, None);
            match client.create(&path, lowest, CreateMode::Persistent).await {
                Err(error) if error.code() != Some(ErrorCode::NodeExists) => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
    }

    /// Rejects a server that may not register because it knows only the levels up to `known`.
    ///
    /// # Errors
    /// [`Error::UnknownLevel`].
    pub fn check_admits(&self, known: FeatureLevel) -> Result<(), Error> {
        match self.admits(known) {
            true => Ok(()),
            false => Err(Error::UnknownLevel { known, cluster: self.needed() }),
        }
    }

    /// Whether a server that knows the levels up to `known` may register.
    pub fn admits(&self, known: FeatureLevel) -> bool {
        known >= self.needed()
    }

    /// The level that a server must know to register: the cluster's, or the announced one if it is
    /// higher.
    fn needed(&self) -> FeatureLevel {
        self.raising_to.map_or(self.level, |next| next.max(self.level))
    }

    /// The check that a registration includes in its multi: the record must be unchanged.
    pub fn check(&self, nodes: &Nodes) -> Op {
        Op::Check { path: nodes.feature_level(), version: Some(self.version) }
    }
}

/// Encodes a record.
pub fn encode(level: FeatureLevel, raising_to: Option<FeatureLevel>) -> Bytes {
    let raising_to = raising_to.unwrap_or_default().0;
    pb::FeatureLevelRecord { level: level.0, raising_to }.encode_to_vec().into()
}

/// Waits until a server that knows the levels up to `known` may register. Unless an announced level
/// is withdrawn, that requires an upgrade of the server's release.
///
/// # Errors
/// The session is over.
pub async fn until_admitted(
    client: &Client,
    nodes: &Nodes,
    known: FeatureLevel,
) -> Result<OnRecord, Error> {
    let mut last_logged: Option<Instant> = None;
    loop {
        let found = OnRecord::read(client, nodes).await;
        match &found {
            Ok(found) if found.admits(known) => return Ok(*found),
            Err(Error::Coordinator(error)) if error.is_session_over() => {
                return Err(error.clone().into());
            }
            _ => {}
        }
        if last_logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            last_logged = Some(Instant::now());
            match found {
                Ok(OnRecord { level, raising_to, .. }) => tracing::error!(
                    known = known.0,
                    cluster = level.0,
                    raising_to = raising_to.map(|next| next.0),
                    "waiting: this release does not know the feature level of the cluster. Start \
                     a release that does"
                ),
                Err(error) => tracing::warn!(%error, "could not read the cluster's feature level"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_must_know_the_level_and_the_one_that_is_announced() {
        let at = |level, raising_to: u32| OnRecord {
            level: FeatureLevel(level),
            raising_to: (raising_to > 0).then_some(FeatureLevel(raising_to)),
            version: 3,
        };
        assert!(at(1, 0).admits(FeatureLevel(1)));
        assert!(at(1, 0).admits(FeatureLevel(2)));
        assert!(!at(2, 0).admits(FeatureLevel(1)));
        assert!(!at(1, 2).admits(FeatureLevel(1)));
        assert!(at(1, 2).admits(FeatureLevel(2)));
    }
}
