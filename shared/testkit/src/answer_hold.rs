//! A connection between a service and its server on which an answer can be held back.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How much is read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// A port of this process that forwards to a server. All bytes between service and server pass through here.
#[derive(Debug)]
pub struct AnswerHold {
    port: u16,
    holds: Arc<Holds>,
}

#[derive(Debug)]
struct Holds {
    /// The words of the service after which nothing from the server arrives on that connection.
    words: watch::Sender<Option<&'static [u8]>>,
    held: watch::Sender<usize>,
}

impl AnswerHold {
    /// A port that forwards to the server on this port of the machine.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let holds = Arc::new(Holds { words: watch::Sender::new(None), held: watch::Sender::new(0) });
        tokio::spawn({
            let holds = holds.clone();
            async move {
                while let Ok((service, _)) = listener.accept().await {
                    tokio::spawn(join(service, server, holds.clone()));
                }
            }
        });
        Self { port, holds }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, a connection on which the service sends these words gets no answer to them, nor to anything after
    /// them, until [`AnswerHold::release`]. The server still carries out its requests.
    pub fn hold_answers_to(&self, words: &'static str) {
        self.holds.words.send_replace(Some(words.as_bytes()));
    }

    /// The number of connections on which answers are held back.
    pub fn held(&self) -> usize {
        *self.holds.held.borrow()
    }

    /// Lets everything pass, beginning with the bytes that were held back.
    pub fn release(&self) {
        self.holds.words.send_replace(None);
    }
}

async fn join(service: TcpStream, server: u16, holds: Arc<Holds>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    if service.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let ((from_service, to_service), (from_server, to_server)) = (service.into_split(), server.into_split());
    let is_held = watch::Sender::new(false);
    tokio::join!(
        pass_questions(from_service, to_server, &holds, &is_held),
        pass_answers(from_server, to_service, &holds, &is_held),
    );
}

async fn pass_questions(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    holds: &Holds,
    is_held: &watch::Sender<bool>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let words = *holds.words.borrow();
        if words.is_some_and(|words| buffer[..length].windows(words.len()).any(|part| part == words)) {
            is_held.send_replace(true);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    // An error is ignored, because the receiver may be gone already.
    let _ = to.shutdown().await;
}

async fn pass_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    holds: &Holds,
    is_held: &watch::Sender<bool>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if is_held.send_replace(false) {
            holds.held.send_modify(|count| *count += 1);
            let mut words = holds.words.subscribe();
            let _ = words.wait_for(Option::is_none).await;
            holds.held.send_modify(|count| *count -= 1);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
