//! A link between a service and a server, which can be cut, closed in one direction, delayed or held up.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// How many chunks may be on their way in one direction. Beyond that the sender has to wait, as with TCP itself.
const CHUNKS_ON_THE_WAY: usize = 64;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the service to the server.
    ToServer,
    /// From the server to the service.
    ToService,
}

impl Way {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::ToServer, Self::ToService];
}

/// How a direction behaves.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    /// The delay of everything that arrives.
    delay: Duration,
    /// Nothing arrives until this ends. Then everything arrives, as dropped packets do that are sent again.
    held: bool,
}

/// A port of this process that forwards to a server. All bytes between service and server pass through here.
#[derive(Debug)]
pub struct Link {
    port: u16,
    controls: Arc<Controls>,
}

#[derive(Debug, Default)]
struct Controls {
    flows: [watch::Sender<Flow>; 2],
    /// Ends the open connections, one direction each.
    ends: Mutex<[CancellationToken; 2]>,
}

impl Controls {
    fn flow(&self, way: Way) -> &watch::Sender<Flow> {
        &self.flows[way as usize]
    }

    fn end(&self, way: Way) -> CancellationToken {
        self.ends.lock()[way as usize].clone()
    }
}

impl Link {
    /// A link to a server on this machine. It lasts as long as this process.
    pub async fn to(server: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let controls = Arc::new(Controls::default());
        tokio::spawn(accept(listener, server, Arc::clone(&controls)));
        Ok(Self { port, controls })
    }

    /// The port to which the service connects.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends every open connection.
    pub fn cut(&self) {
        for way in Way::BOTH {
            self.close(way);
        }
    }

    /// Ends one direction of every open connection. Its receiver sees the end, and the other direction goes on.
    pub fn close(&self, way: Way) {
        let mut ends = self.controls.ends.lock();
        std::mem::take(&mut ends[way as usize]).cancel();
    }

    /// Delays everything in this direction by `delay`.
    pub fn delay(&self, way: Way, delay: Duration) {
        self.controls.flow(way).send_modify(|flow| flow.delay = delay);
    }

    /// Lets nothing through in this direction; with `false`, lets everything through again.
    pub fn hold(&self, way: Way, held: bool) {
        self.controls.flow(way).send_modify(|flow| flow.held = held);
    }

    /// Removes all delays, and holds nothing up any more.
    pub fn clear(&self) {
        for way in Way::BOTH {
            self.controls.flow(way).send_replace(Flow::default());
        }
    }
}

async fn accept(listener: TcpListener, server: u16, controls: Arc<Controls>) {
    loop {
        match listener.accept().await {
            Ok((service, _)) => {
                tokio::spawn(connect(service, server, Arc::clone(&controls)));
            }
            // The service gave up before its connection was accepted.
            Err(error) => eprintln!("a connection could not be taken: {error}"),
        }
    }
}

/// Joins a service to its server; if that is away, the service sees its connection end.
async fn connect(service: TcpStream, server: u16, controls: Arc<Controls>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    if service.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_service, to_service) = service.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pass(from_service, to_server, controls.flow(Way::ToServer).subscribe(), controls.end(Way::ToServer)),
        pass(
            from_server,
            to_service,
            controls.flow(Way::ToService).subscribe(),
            controls.end(Way::ToService)
        ),
    );
}

/// Passes on the bytes until their end, a failure, or `end`. Then the receiver sees the end.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    flow: watch::Receiver<Flow>,
    end: CancellationToken,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_ON_THE_WAY);
    let reading = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            // To the receiver, the end of a connection and its loss are the same.
            let Ok(1..) = from.read_buf(&mut buffer).await else { break };
            let due = Instant::now() + flow.borrow().delay;
            if sender.send((due, buffer.split().freeze())).await.is_err() {
                break;
            }
        }
        drop(sender);
    };
    let mut held = flow.clone();
    let writing = async {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if held.wait_for(|flow| !flow.held).await.is_err() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        drop(receiver);
    };
    end.run_until_cancelled(async { tokio::join!(reading, writing) }).await;
    // An error is ignored, because the receiver may be gone already.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// A link, and both ends of a connection over it.
    async fn joined() -> (Link, TcpStream, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::to(server.local_addr().unwrap().port()).await.unwrap();
        let service = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).await.unwrap();
        let (server, _) = server.accept().await.unwrap();
        (link, service, server)
    }

    async fn says(from: &mut TcpStream, to: &mut TcpStream) -> u8 {
        from.write_all(b"!").await.unwrap();
        to.read_u8().await.unwrap()
    }

    #[tokio::test]
    async fn a_link_passes_both_ways_and_a_cut_ends_both() {
        let (link, mut service, mut server) = joined().await;
        assert_eq!(says(&mut service, &mut server).await, b'!');
        assert_eq!(says(&mut server, &mut service).await, b'!');
        link.cut();
        assert_eq!(service.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(server.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_half_closed_connection_goes_on_in_the_other_direction() {
        let (link, mut service, mut server) = joined().await;
        assert_eq!(says(&mut service, &mut server).await, b'!');
        link.close(Way::ToService);
        assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(says(&mut service, &mut server).await, b'!');
    }

    #[tokio::test]
    async fn what_is_delayed_or_held_up_arrives_late_and_whole() {
        let (link, mut service, mut server) = joined().await;
        link.delay(Way::ToServer, Duration::from_millis(100));
        let begin = Instant::now();
        assert_eq!(says(&mut service, &mut server).await, b'!');
        assert!(begin.elapsed() >= Duration::from_millis(100));
        link.clear();
        link.hold(Way::ToServer, true);
        service.write_all(b"?").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), server.read_u8()).await;
        assert!(early.is_err(), "it got through");
        assert_eq!(says(&mut server, &mut service).await, b'!');
        link.hold(Way::ToServer, false);
        assert_eq!(server.read_u8().await.unwrap(), b'?');
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_an_end_of_the_connection() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::to(server.local_addr().unwrap().port()).await.unwrap();
        drop(server);
        let mut service = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).await.unwrap();
        assert_eq!(service.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
