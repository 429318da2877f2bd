//! The one binary: every role of Basalt, and the tools that run them, as subcommands.
//!
//! A role's subcommand reads one file ([`role_config`]) and runs the role inside [`role`], which
//! sets up telemetry, signals and seams. [`local`] runs a whole cluster as child processes. Each
//! subcommand has its own file with its arguments and a `run` function.

#[macro_use]
mod output;

mod accept_loss;
mod bench;
mod chaos;
mod coordinator;
mod crds;
mod demo;
mod fsck;
mod health;
mod idle;
pub mod local;
mod manifest;
mod master;
mod master_lease;
mod operator;
mod probe;
mod progress;
mod regionserver;
pub mod role;
pub mod role_config;
mod shell;
mod storage;
mod timers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An HBase-style database that recovers from failures in seconds.
#[derive(Parser)]
#[command(name = "basalt", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole cluster on this machine, as the manifest declares it
    Local(local::Arguments),
    /// Start a cluster, kill its servers under load, and show how it recovers
    Demo(demo::Arguments),
    /// Inject random faults into a cluster for a while, and check that nothing is lost
    Chaos(chaos::Arguments),
    /// Write to and read from every region of a cluster, and measure what faults cost
    Probe(probe::Arguments),
    /// Run YCSB's workloads against clusters, and compare them
    Bench(bench::Arguments),
    /// Run one member of the coordinator
    Coordinator(role::Arguments),
    /// Run one master
    Master(role::Arguments),
    /// Run one region server
    Regionserver(role::Arguments),
    /// Run the Kubernetes operator
    Operator(operator::Arguments),
    /// Accept the loss of a dead region server's WAL files, so that its regions open without them
    AcceptLoss(accept_loss::Arguments),
    /// Compare the files of a cluster with its records, without changing anything
    Fsck(fsck::Arguments),
    /// Print the Kubernetes custom resource definitions
    Crds(crds::Arguments),
    /// Print the timers that are derived from a manifest
    Timers(timers::Arguments),
    /// Print the version
    Version,
    /// A role that does nothing until it is stopped; the tests of `local` run it
    #[command(hide = true)]
    Idle(role::Arguments),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Local(arguments) => local::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Coordinator(arguments) => role::run(&arguments, coordinator::run),
        Command::Master(arguments) => role::run(&arguments, master::run),
        Command::Regionserver(arguments) => role::run(&arguments, regionserver::run),
        Command::Operator(arguments) => operator::run(&arguments),
        Command::AcceptLoss(arguments) => accept_loss::run(&arguments),
        Command::Fsck(arguments) => fsck::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Timers(arguments) => timers::run(&arguments),
        Command::Version => {
            output::print_result(concat!("basalt ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Command::Idle(arguments) => role::run(&arguments, idle::run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error_line!("basalt: {}", output::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}
