//! The words of Basalt: cells, tables, regions, server names, epochs and paths. No I/O, no async.
