//! Requests on NATS, all over one connection a thread.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::{Failure, Target};

/// One of the requests in flight on a connection.
#[derive(Debug)]
pub(crate) struct Bus {
    client: async_nats::Client,
}

/// The place of a nats-server, and the user to ask as.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) user: &'static str,
    pub(crate) password: String,
    /// The connection of a thread, made by its first target and shared by all of them: a client with 64 requests in
    /// flight has them on one connection.
    pub(crate) client: Arc<OnceCell<async_nats::Client>>,
}

impl Place {
    /// A server of the tests.
    pub(crate) fn of(nats: &testkit::NatsServer, user: &'static str) -> Self {
        let password = nats.password(user).to_owned();
        Self { url: nats.url(), user, password, client: Arc::default() }
    }
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) subject: async_nats::Subject,
    pub(crate) payload: Bytes,
    /// The number of bytes that the answer must have; `None` if any number will do.
    pub(crate) answer_length: Option<usize>,
}

impl Target for Bus {
    type Place = Place;
    type Message = Message;

    fn on_thread(place: &Place) -> Place {
        Place { client: Arc::default(), ..place.clone() }
    }

    async fn connect(place: &Place) -> Result<Self, Failure> {
        let connect = || async {
            async_nats::ConnectOptions::with_user_and_password(place.user.to_owned(), place.password.clone())
                .custom_inbox_prefix(format!("_INBOX_{}", place.user))
                .connect(&place.url)
                .await
        };
        let client = place.client.get_or_try_init(connect).await;
        Ok(Self { client: client.map_err(|error| Failure::NotConnected(error.to_string()))?.clone() })
    }

    async fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let reply = self.client.request(message.subject.clone(), message.payload.clone()).await;
        let reply = reply.map_err(|_| Failure::Unanswered)?;
        let headers = reply.headers.as_ref();
        if let Some(code) = headers.and_then(|headers| headers.get("Nats-Service-Error-Code")) {
            return Err(Failure::Status(code.as_str().parse().unwrap_or(500)));
        }
        match message.answer_length {
            Some(length) if length != reply.payload.len() => Err(Failure::Length(reply.payload.len() as u64)),
            _ => Ok(()),
        }
    }
}
