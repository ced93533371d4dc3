//! The gateway's process.

use std::process::ExitCode;

/// glibc's allocator keeps what many threads have freed; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gateway::main()
}
