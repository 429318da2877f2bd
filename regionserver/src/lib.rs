//! The region server: serves regions, splits and replays the logs of dead servers.
