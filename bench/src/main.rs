//! `bench`: measures whole systems of pixcache, made of its release binaries and of real servers.

mod all;
mod bus;
mod compare;
mod faults;
mod graphs;
mod hitratio;
mod load;
mod peers;
mod picture;
mod pictures;
mod process;
mod report;
mod s3;
mod scale;
mod server;
mod system;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As in the gateway, so that the bare handlers are as good.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures whole systems of pixcache
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The worker on NATS against a bare responder
    Bus(bus::Arguments),
    /// The same requests against pixcache, Varnish, nginx, memcached and bare handlers
    Peers(peers::Arguments),
    /// A peer that is a program of ours
    #[command(hide = true)]
    Bare(peers::bare::Arguments),
    /// Breaks a system in every way there is, under load, and checks what it promises
    Faults(faults::Arguments),
    /// Every measurement, one after the other
    All(all::Arguments),
    /// Latency and throughput by policy, over the requests in flight
    Graphs(graphs::Arguments),
    /// Cost as the work grows: entries, keys, sizes, clients, statistics
    Scale(scale::Arguments),
    /// Hit ratio by policy and capacity, against the optimum
    Hitratio(hitratio::Arguments),
    /// Cost of a thumbnail, against vipsthumbnail and ImageMagick
    Pictures(pictures::Arguments),
    /// Makes one thumbnail
    #[command(hide = true)]
    Thumbnail(pictures::One),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match runtime::process::settings::<Arguments>("bench").command {
        Command::Bus(arguments) => bus::run(&arguments).await.map(|()| true),
        Command::Peers(arguments) => peers::run(&arguments).await.map(|()| true),
        Command::Bare(arguments) => peers::bare::run(arguments).await,
        Command::Faults(arguments) => faults::run(arguments).await,
        Command::All(arguments) => all::run(&arguments).map(|()| true),
        Command::Graphs(arguments) => graphs::run(&arguments).await.map(|()| true),
        Command::Scale(arguments) => scale::run(&arguments).await.map(|()| true),
        Command::Hitratio(arguments) => hitratio::run(&arguments).map(|()| true),
        Command::Pictures(arguments) => pictures::run(&arguments).await.map(|()| true),
        Command::Thumbnail(arguments) => pictures::one(&arguments).map(|()| true),
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
