//! A client of one gateway that never sends anything twice by itself.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::history::{CacheWord, Failure};

/// How long an answer may take. A gateway has answered, or is gone, long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client with one connection, made when it is needed.
#[derive(Debug)]
pub(crate) struct Client {
    port: u16,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) cache: Option<CacheWord>,
    pub(crate) body: Bytes,
}

/// A request that was not answered, and what the head of an answer said that then broke off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoAnswer {
    pub(crate) failure: Failure,
    pub(crate) cache: Option<CacheWord>,
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        Self { failure, cache: None }
    }
}

impl Client {
    /// A client of the gateway at this port.
    pub(crate) fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    /// Sends one request and reads its answer to the end.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let answer = timeout(PATIENCE, self.exchange(method, path, headers, body)).await;
        let answer = answer.unwrap_or(Err(Failure::Unanswered.into()));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let port = self.port;
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => connect(port).await.ok_or(Failure::NotSent)?,
        };
        let mut request =
            Request::builder().method(method).uri(path).header("Host", format!("127.0.0.1:{port}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // All of it comes from here, so it is well formed.
        let request = request.body(Full::new(body)).map_err(|_| Failure::NotSent)?;
        if connection.ready().await.is_err() {
            return Err(Failure::NotSent.into());
        }
        let response = connection.send_request(request).await.map_err(|_| Failure::Lost)?;
        let status = response.status().as_u16();
        let cache = cache_word(&response);
        let body =
            response.into_body().collect().await.map_err(|_| NoAnswer { failure: Failure::Lost, cache })?;
        self.connection = Some(connection);
        Ok(Answer { status, cache, body: body.to_bytes() })
    }
}

async fn connect(port: u16) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // Whatever ends it shows in the requests on it.
    tokio::spawn(async move { drop(connection.await) });
    Some(sender)
}

fn cache_word<B>(response: &Response<B>) -> Option<CacheWord> {
    CacheWord::of(response.headers().get("cache-status")?.to_str().ok()?)
}

/// Whether the gateway at this port finds all parts of the system.
pub(crate) async fn is_ready(port: u16) -> bool {
    let answer = Client::new(port).send("GET", "/readyz", &[], Bytes::new()).await;
    answer.is_ok_and(|answer| answer.status == 200)
}
