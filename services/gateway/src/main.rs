//! The process around the gateway.

fn main() {}
