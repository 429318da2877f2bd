//! Round trips of every record, bytes as the real thing sends them, and hostile input.
