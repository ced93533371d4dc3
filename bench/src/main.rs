//! `bench`: measures whole systems of pixcache, made of its release binaries and of real servers.

mod faults;
mod load;
mod picture;
mod process;
mod report;
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Faults(arguments) => faults::run(arguments).await,
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
