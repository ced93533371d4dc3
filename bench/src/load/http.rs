//! HTTP/1.1 over one connection, as little of it as a load needs: answers have a `Content-Length`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::{Failure, Target};

/// How much is read at once. It is more than a small answer has, so that one call reads all of it.
const READ_BYTES: usize = 128 << 10;
/// The longest head of an answer, in bytes; a longer one is malformed.
const LONGEST_HEAD: usize = 16 << 10;
/// The most headers of an answer.
const MOST_HEADERS: usize = 48;
/// In each group of this many answers, the body of one is compared, byte by byte.
const COMPARED: u32 = 512;

thread_local! {
    /// The bytes that were read last: one buffer for all connections of a thread stays in the processor's cache.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Http {
    stream: TcpStream,
    /// Answers until the next one that is compared.
    uncompared: u32,
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    head: Bytes,
    body: Bytes,
    status: RangeInclusive<u16>,
    header: Option<(&'static str, &'static str)>,
    answer: Option<Bytes>,
    has_body: bool,
}

impl Message {
    /// `method` at `path`, with these headers and this body, to be answered with 200.
    pub(crate) fn new(method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        Self {
            head: head.into(),
            body,
            status: 200..=200,
            header: None,
            answer: None,
            has_body: method != "HEAD",
        }
    }

    /// A `GET`.
    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path, &[], Bytes::new())
    }

    /// The same message, whose answer must have one of these statuses.
    pub(crate) fn answered(self, status: RangeInclusive<u16>) -> Self {
        Self { status, ..self }
    }

    /// The same message, whose answer must be these bytes. Their number is checked each time, their content now and
    /// then.
    pub(crate) fn answered_with(self, body: Bytes) -> Self {
        Self { answer: Some(body), ..self }
    }

    /// The same message, whose answer must have this header, with a value that begins with `value`.
    pub(crate) fn saying(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

/// An answer, for callers that need its content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Its headers, in their order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The fields of a head that are looked at each time.
struct Head {
    status: u16,
    body_length: u64,
    header: Result<(), Failure>,
}

impl Target for Http {
    /// A port on this machine.
    type Place = u16;
    type Message = Message;

    async fn connect(port: &u16) -> Result<Self, Failure> {
        let connected = async {
            let stream = TcpStream::connect(("127.0.0.1", *port)).await?;
            stream.set_nodelay(true)?;
            std::io::Result::Ok(stream)
        };
        let stream = connected.await.map_err(|error| Failure::NotConnected(error.to_string()))?;
        Ok(Self { stream, uncompared: 0 })
    }

    async fn send(&mut self, message: &Message) -> Result<(), Failure> {
        if let (Some(expected), 0) = (&message.answer, self.uncompared) {
            self.uncompared = COMPARED;
            let answer = self.ask(message).await?;
            return if answer.body == *expected { Ok(()) } else { Err(Failure::Content) };
        }
        self.uncompared = self.uncompared.saturating_sub(1);
        self.exchange(message, &mut |_, _| {}).await
    }
}

impl Http {
    /// Sends a request, and returns its answer, if that is the expected one.
    pub(crate) async fn ask(&mut self, message: &Message) -> Result<Answer, Failure> {
        let mut answer = Answer::default();
        let mut keep = |head: Option<&httparse::Response<'_, '_>>, body: &[u8]| {
            if let Some(head) = head {
                answer.status = head.code.unwrap_or_default();
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                answer.headers =
                    head.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
            }
            answer.body.extend_from_slice(body);
        };
        self.exchange(message, &mut keep).await?;
        Ok(answer)
    }

    /// `keep` is given the head, once, and all pieces of the body.
    async fn exchange(
        &mut self,
        message: &Message,
        keep: &mut impl FnMut(Option<&httparse::Response<'_, '_>>, &[u8]),
    ) -> Result<(), Failure> {
        if message.body.is_empty() {
            self.stream.write_all(&message.head).await?;
        } else {
            self.stream.write_all_buf(&mut message.head.clone().chain(message.body.clone())).await?;
        }
        // The bytes of a head that is not complete yet.
        let mut pending = Vec::new();
        let (head, begun) = loop {
            let read = poll_fn(|cx| {
                self.poll_read(cx, &mut |bytes| {
                    if pending.is_empty()
                        && let Some(found) = parse(bytes, message, keep)?
                    {
                        return Ok(Some(found));
                    }
                    pending.extend_from_slice(bytes);
                    let found = parse(&pending, message, keep)?;
                    if found.is_none() && pending.len() > LONGEST_HEAD {
                        return Err(Failure::Malformed);
                    }
                    Ok(found)
                })
            });
            if let Some(found) = read.await? {
                break found;
            }
        };
        let mut left = head.body_length.checked_sub(begun).ok_or(Failure::Malformed)?;
        while left > 0 {
            let read = poll_fn(|cx| {
                self.poll_read(cx, &mut |bytes| {
                    keep(None, bytes);
                    Ok(bytes.len() as u64)
                })
            });
            left = left.checked_sub(read.await?).ok_or(Failure::Malformed)?;
        }
        if !message.status.contains(&head.status) {
            return Err(Failure::Status(head.status));
        }
        head.header?;
        match &message.answer {
            Some(expected) if message.has_body && expected.len() as u64 != head.body_length => {
                Err(Failure::Length(head.body_length))
            }
            _ => Ok(()),
        }
    }

    /// Reads the bytes that are there, and gives them to `take`. It is a poll, because all connections share the
    /// buffer.
    fn poll_read<R>(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&[u8]) -> Result<R, Failure>,
    ) -> Poll<Result<R, Failure>> {
        READ.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(Failure::Lost(std::io::ErrorKind::UnexpectedEof)));
            }
            Poll::Ready(take(buffer.filled()))
        })
    }
}

/// The head that `bytes` begin with, if it is whole, and how many bytes of the body are there too.
fn parse(
    bytes: &[u8],
    message: &Message,
    keep: &mut impl FnMut(Option<&httparse::Response<'_, '_>>, &[u8]),
) -> Result<Option<(Head, u64)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::Malformed),
    };
    let status = response.code.unwrap_or_default();
    let find = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let body_length = match find("content-length") {
        _ if !message.has_body || status == 304 || status == 204 => 0,
        Some(length) => length.parse().map_err(|_| Failure::Malformed)?,
        None => return Err(Failure::Malformed),
    };
    let header = match message.header {
        Some((name, value)) => match find(name) {
            Some(found) if found.starts_with(value) => Ok(()),
            found => Err(Failure::Header(name, found.unwrap_or_default().to_owned())),
        },
        None => Ok(()),
    };
    let body = &bytes[length..];
    keep(Some(&response), body);
    Ok(Some((Head { status, body_length, header }, body.len() as u64)))
}
