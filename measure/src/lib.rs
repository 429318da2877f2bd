//! What measures a cluster from outside: the probe, the benchmark and their reports.
