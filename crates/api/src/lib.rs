//! The manifests BasaltCluster and BasaltTable, their validation, and the timers derived from failover.target.
