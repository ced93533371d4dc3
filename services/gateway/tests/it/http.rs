//! A client that sends exactly what it is told, also what no proper client would.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long an answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing says, and not because the connection broke off.
    pub(crate) complete: bool,
}

impl Answer {
    /// A header's value; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// All headers, in order, but those that differ from one moment to the next.
    pub(crate) fn lasting_headers(&self) -> Vec<(&str, &str)> {
        let lasting = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut lasting: Vec<_> =
            lasting.filter(|(name, _)| !["date", "server-timing"].contains(name)).collect();
        lasting.sort_unstable();
        lasting
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {:?}", self.status, self.text()))
    }

    /// What the cache did.
    /// Whether the image came from the worker, or from the gateway's own copy.
    pub(crate) fn is_hit(&self) -> bool {
        matches!(self.cache(), "hit" | "hit; detail=near")
    }

    pub(crate) fn cache(&self) -> &str {
        self.header("cache-status").strip_prefix("pixcache; ").unwrap_or_default()
    }

    /// The failure in the shape of the JSON API: its code, after a look at its shape.
    pub(crate) fn failure(&self) -> u16 {
        let json = self.json();
        assert_eq!(json["success"], "false", "{json}");
        assert!(json["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{json}");
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(json["error"]["code"], self.status, "{json}");
        self.status
    }
}

/// This machine, as most who ask.
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// This machine under another address, as somebody else.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// A connection from one of the addresses that this machine has on loopback.
pub(crate) async fn connect_from(address: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((address, 0).into())?;
    socket.connect((HERE, port).into()).await
}

/// Sends one request on a connection of its own. `path` goes out as it is.
pub(crate) async fn send(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    send_from(HERE, port, method, path, headers, body).await
}

/// The same from one of the addresses of this machine.
pub(crate) async fn send_from(
    address: Ipv4Addr,
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let is_framed = headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("transfer-encoding") || name.eq_ignore_ascii_case("content-length")
    });
    if !is_framed && (!body.is_empty() || matches!(method, "POST" | "PUT")) {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    exchange_from(address, port, method, &bytes).await
}

/// Writes these bytes to a connection of their own and reads the answer, while it is still writing if need
/// be.
pub(crate) async fn exchange(port: u16, method: &str, request: &[u8]) -> Answer {
    exchange_from(HERE, port, method, request).await
}

async fn exchange_from(address: Ipv4Addr, port: u16, method: &str, request: &[u8]) -> Answer {
    let stream = connect_from(address, port).await.expect("the gateway takes connections");
    let (mut reading, mut writing) = stream.into_split();
    let request = request.to_vec();
    let writer = tokio::spawn(async move {
        // A server may refuse without reading everything.
        let _ = writing.write_all(&request).await;
        writing
    });
    let mut received = Vec::new();
    let end =
        timeout(PATIENCE, read_answer(&mut reading, &mut received)).await.expect("an answer comes in time");
    drop(writer.await.expect("the writer does not panic"));
    let head_end = received.windows(4).position(|window| window == b"\r\n\r\n");
    let head_end =
        head_end.unwrap_or_else(|| panic!("no answer: {end:?} {:?}", String::from_utf8_lossy(&received)));
    let head = String::from_utf8_lossy(&received[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut answer = Answer {
        status: status.parse().expect("a status is a number"),
        headers,
        body: Vec::new(),
        complete: false,
    };
    let rest = &received[head_end + 4..];
    if answer.status == 100 {
        panic!("100 Continue is for exchange_expecting alone");
    }
    if answer.header("transfer-encoding") == "chunked" {
        (answer.body, answer.complete) = dechunked(rest);
    } else {
        let length = answer.header("content-length").parse().unwrap_or(0);
        let bodiless = method == "HEAD" || matches!(answer.status, 204 | 304);
        answer.complete = rest.len() == if bodiless { 0 } else { length };
        answer.body = rest.to_vec();
    }
    answer
}

/// Reads to the end, or, as events have none, to the first of them.
async fn read_answer(reading: &mut OwnedReadHalf, received: &mut Vec<u8>) -> std::io::Result<()> {
    let holds = |received: &[u8], what: &[u8]| received.windows(what.len()).any(|window| window == what);
    while !holds(received, b"\r\n\r\n") {
        if reading.read_buf(received).await? == 0 {
            return Ok(());
        }
    }
    if !holds(received, b"content-type: text/event-stream") {
        return reading.read_to_end(received).await.map(|_| ());
    }
    while !holds(received, b"\n\n") && reading.read_buf(received).await? > 0 {}
    Ok(())
}

fn dechunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line_end) = rest.windows(2).position(|window| window == b"\r\n") else {
            return (body, false);
        };
        let size = String::from_utf8_lossy(&rest[..line_end]);
        let size = usize::from_str_radix(&size, 16).expect("a chunk has a size");
        rest = &rest[line_end + 2..];
        if size == 0 {
            return (body, rest == b"\r\n");
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(rest);
            return (body, false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// The parts of a form, written as browsers do.
#[derive(Debug, Default)]
pub(crate) struct Form {
    body: Vec<u8>,
}

const BOUNDARY: &str = "----pixcacheTestBoundary";

impl Form {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn part(self, disposition: &str, bytes: &[u8]) -> Self {
        self.part_with(disposition, "", bytes)
    }

    pub(crate) fn part_with(mut self, disposition: &str, header: &str, bytes: &[u8]) -> Self {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n{header}\r\n");
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.part("name=\"key\"", key.as_bytes())
    }

    pub(crate) fn file(self, bytes: &[u8]) -> Self {
        self.part_with(
            "name=\"file\"; filename=\"photo.jpg\"",
            "Content-Type: application/octet-stream\r\n",
            bytes,
        )
    }

    pub(crate) fn content_type() -> String {
        format!("multipart/form-data; boundary={BOUNDARY}")
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        self.body
    }

    /// As it is when the connection breaks off.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.body
    }
}
