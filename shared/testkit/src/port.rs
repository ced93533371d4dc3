use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use parking_lot::Mutex;

/// Below the ports that systems hand to outgoing connections (32768 up on Linux, 49152 elsewhere). So while a server is
/// down for a moment, no outgoing connection of a client can take its port.
const PORTS: Range<u16> = 15_000..32_000;

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A TCP port on which nothing listens on loopback, and which this process gets only once.
///
/// Another process can still take it before it is used. So the caller that starts a server on it must check that the
/// server that answers there is its own, and else ask for another port. A server in the test's own process binds port 0
/// instead.
///
/// # Panics
/// When no port is free.
pub fn free_port() -> u16 {
    let mut handed_out = HANDED_OUT.lock();
    for _ in 0..1000 {
        let port = rand::random_range(PORTS);
        if !handed_out.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            handed_out.insert(port);
            return port;
        }
    }
    panic!("there is no free port from {} to {}", PORTS.start, PORTS.end - 1);
}
