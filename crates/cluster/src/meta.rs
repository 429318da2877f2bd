//! The catalog as clients see it: a read-only `hbase:meta`.
