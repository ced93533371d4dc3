//! Puts the endpoints on the bus, and reads each of them.

use std::future::Future;
use std::sync::Arc;

use async_nats::Client;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{Request, Service, ServiceExt as _};
use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::Bus;
use runtime::clock::Moment;
use runtime::service::{Answer, metadata, respond};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::inspect::ServicePing;
use wire::reply::Code;
use wire::subject;

use super::handled::Handled;
use super::table::{ENDPOINTS, Group, Handler, QUEUE_GROUP, Row};
use crate::live::Live;
use crate::near;
use crate::worker::{Worker, not_serving};

/// The most bytes that wait for one endpoint. They are counted in units of [`WAITING_UNIT`] bytes.
const WAITING_BYTES: usize = 32 << 20;
const WAITING_UNIT: usize = 1024;

/// The endpoints: subscribed, but not read yet.
pub(crate) struct Endpoints {
    service: Service,
    subscribed: Vec<(Row, Endpoint)>,
}

impl Endpoints {
    /// Puts the service on the bus.
    ///
    /// # Errors
    /// When a subscription can't be made.
    pub(crate) async fn subscribe(worker: &Worker) -> Result<Self, async_nats::Error> {
        let client = worker.bus.client();
        let service = client
            .service_builder()
            .description("Keeps image bytes in memory")
            .queue_group(QUEUE_GROUP)
            .metadata(metadata([
                ("worker", worker.name.clone()),
                ("incarnation", worker.incarnation.clone()),
                ("state", ServicePing::SERVING.to_owned()),
            ]))
            .start(subject::MEMCACHE_SERVICE, env!("CARGO_PKG_VERSION"))
            .await?;
        let mut subscribed = Vec::with_capacity(ENDPOINTS.len());
        for row in ENDPOINTS {
            let endpoint = service.endpoint_builder().name(row.name).queue_group(row.queue_group);
            let endpoint = endpoint.add(row.subject).await?;
            subscribed.push((row, endpoint));
        }
        Ok(Self { service, subscribed })
    }

    /// Reads get and put until `stop.reads`, and the other endpoints until `stop.rest`. Each then answers the requests
    /// that have already come. `spawn` starts one endpoint's loop in the group that it belongs to.
    pub(crate) fn serve(
        self,
        worker: &Arc<Worker>,
        live: &Arc<Live>,
        stop: &Stop,
        mut spawn: impl FnMut(&'static str, Group, Loop),
    ) {
        for (row, endpoint) in self.subscribed {
            let stop = if row.group == Group::Reads { &stop.reads } else { &stop.rest };
            let answering = answer_all(endpoint, stop.clone(), worker.clone(), live.clone(), row.handler);
            spawn(row.name, row.group, Box::pin(answering));
        }
        let stopped = stop.rest.clone();
        let service = self.service;
        spawn(
            "service",
            Group::Rest,
            Box::pin(async move {
                stopped.cancelled().await;
                let _ = service.stop().await;
            }),
        );
    }
}

/// Announces on the bus, without any endpoint, that this worker stands by: until [`Service::stop`].
///
/// # Errors
/// When a subscription can't be made.
pub(crate) async fn stand_by(client: &Client, worker: &str) -> Result<Service, async_nats::Error> {
    let said = [("worker", worker.to_owned()), ("state", ServicePing::STANDING_BY.to_owned())];
    let service = client.service_builder().description("Waits for the claim to serve");
    let service = service.queue_group(QUEUE_GROUP).metadata(metadata(said));
    service.start(subject::MEMCACHE_SERVICE, env!("CARGO_PKG_VERSION")).await
}

/// One endpoint's loop.
pub(crate) type Loop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// When the two groups of endpoints stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// [`Group::Reads`].
    pub(crate) reads: CancellationToken,
    /// [`Group::Rest`].
    pub(crate) rest: CancellationToken,
}

async fn answer_all(
    mut endpoint: Endpoint,
    stop: CancellationToken,
    worker: Arc<Worker>,
    live: Arc<Live>,
    handler: Handler,
) {
    let later = TaskTracker::new();
    match handler {
        Handler::AtOnce(handle) => {
            let mut stopping = false;
            while let Some(request) = next(&mut endpoint, &stop, &mut stopping).await {
                let handled = handle(&worker, &request);
                answer(&worker, request, handled, &later).await;
            }
        }
        Handler::InTurn(handle) => {
            let (wait, mut waiting) = mpsc::unbounded_channel();
            let answering = async {
                while let Some((request, _place, arrived)) = waiting.recv().await {
                    let handled = handle(&worker, &live, &request, arrived).await;
                    answer(&worker, request, handled, &later).await;
                }
            };
            tokio::join!(take(endpoint, &stop, &worker.bus, wait), answering);
        }
    }
    later.close();
    later.wait().await;
}

/// A request that waits, its share of the room, and the moment of its arrival.
type Waiting = (Request, OwnedSemaphorePermit, Moment);

/// Takes requests from the library, which keeps thousands of messages for a subscription, however large they are. Requests
/// beyond [`WAITING_BYTES`] are refused.
async fn take(
    mut endpoint: Endpoint,
    stop: &CancellationToken,
    bus: &Bus,
    wait: mpsc::UnboundedSender<Waiting>,
) {
    let room = Arc::new(Semaphore::new(WAITING_BYTES / WAITING_UNIT));
    let mut stopping = false;
    while let Some(request) = next(&mut endpoint, stop, &mut stopping).await {
        let units = request.message.length.div_ceil(WAITING_UNIT).max(1);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let unsent = match room.clone().try_acquire_many_owned(units) {
            Ok(place) => wait.send((request, place, Moment::now())).err().map(|unsent| unsent.0.0),
            Err(_) => Some(request),
        };
        if let Some(request) = unsent {
            let message = "too many bytes wait for being looked at; ask again in a moment";
            respond(bus, &request, Answer::refuse(Code::Unavailable, message)).await;
        }
    }
}

/// The next request. After the stop, only requests that had come before it; `None` when they are used up.
async fn next(endpoint: &mut Endpoint, stop: &CancellationToken, stopping: &mut bool) -> Option<Request> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !*stopping => {
                *stopping = true;
                if let Err(error) = endpoint.stop().await {
                    tracing::debug!(%error, "an endpoint was not unsubscribed");
                }
            }
            request = endpoint.next() => return request,
        }
    }
}

/// Sends the answer, now or when it may be sent.
async fn answer(worker: &Arc<Worker>, mut request: Request, handled: Handled, later: &TaskTracker) {
    match handled {
        Handled::Now(answer) => respond(&worker.bus, &request, answer).await,
        Handled::Later(drop, answer) if near::is_done(worker, &drop) => {
            respond(&worker.bus, &request, if_serving(worker, answer)).await;
        }
        Handled::Later(drop, answer) => {
            let worker = worker.clone();
            // Many requests may wait here, and none needs its payload any more.
            request.message.payload = Bytes::new();
            later.spawn(async move {
                near::tell(&worker, &drop).await;
                respond(&worker.bus, &request, if_serving(&worker, answer)).await;
            });
        }
        Handled::Elsewhere => {}
    }
}

/// Only the worker that serves acknowledges (rule 9). On a new connection another worker may have the claim already,
/// and an acknowledgement by this one would say nothing about the other.
fn if_serving(worker: &Worker, answer: Answer) -> Answer {
    if worker.is_serving() { answer } else { Answer::Refused(not_serving(), None) }
}
