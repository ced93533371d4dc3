//! `bench`: measures whole systems of pixcache, made of its release binaries and of real servers.

mod faults;
mod graphs;
mod hitratio;
mod load;
mod picture;
mod process;
mod report;
mod scale;
mod system;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures whole systems of pixcache
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Breaks a system in every way there is, under load, and checks what it promises
    Faults(faults::Arguments),
    /// Cost as the work grows: entries, keys, sizes, clients, statistics
    Scale(scale::Arguments),
    /// Hit ratio by policy and capacity, against the optimum
    Hitratio(hitratio::Arguments),
    /// Latency and throughput by policy, over the requests in flight
    Graphs(graphs::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Faults(arguments) => faults::run(arguments).await,
        Command::Scale(arguments) => scale::run(&arguments).await.map(|()| true),
        Command::Hitratio(arguments) => hitratio::run(&arguments).map(|()| true),
        Command::Graphs(arguments) => graphs::run(&arguments).await.map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
