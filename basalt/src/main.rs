//! The one binary: every role of Basalt as a subcommand.

fn main() {}
