//! Questions about history and their answers: the NATS service `recorder`.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_nats::service::{Request, ServiceExt as _};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use runtime::Bus;
use runtime::service::{Answer, metadata, parse_json, respond};
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::reply::{Code, Refusal};
use wire::stats::{History, HistoryRequest, Series, SeriesRequest};
use wire::subject;
use wire::words::{one_of, shown};

use crate::consumer::Tally;
use crate::repository::{Repository, RepositoryError};

/// The queue group of the endpoints: of several recorders, one answers.
const QUEUE_GROUP: &str = "recorder";
/// The queue group of the endpoint for unknown commands, whose pattern covers the other subjects too. In one group
/// with the others, it would get a share of their messages instead of a copy.
const UNKNOWN_QUEUE_GROUP: &str = "recorder-unknown";
/// The most questions that are answered at the same time; further ones wait.
const CONCURRENCY: usize = 6;
/// The most changes in one answer.
const MOST_CHANGES: u32 = 1000;
/// The most changes in one answer that shows their effects: each effect takes two sums.
const MOST_COMPARED: u32 = 100;

/// One endpoint of the service.
struct Row {
    name: &'static str,
    subject: &'static str,
    queue_group: &'static str,
    /// No answer: another endpoint answers.
    handler: for<'a> fn(&'a Repository, &'a Request) -> BoxFuture<'a, Option<Answer>>,
}

/// The endpoints.
const ENDPOINTS: [Row; 3] = [
    Row {
        name: "series",
        subject: subject::SERIES,
        queue_group: QUEUE_GROUP,
        handler: |repository, request| series_of(repository, request).map(answer_of).boxed(),
    },
    Row {
        name: "config_history",
        subject: subject::CONFIG_HISTORY,
        queue_group: QUEUE_GROUP,
        handler: |repository, request| history_of(repository, request).map(answer_of).boxed(),
    },
    Row {
        name: "unknown",
        subject: subject::ANY_STATS_COMMAND,
        queue_group: UNKNOWN_QUEUE_GROUP,
        handler: |_, request| ready(unknown_command(request)).boxed(),
    },
];

/// Puts the service on the bus and answers until `shutdown`. Then it answers the questions that have already come,
/// for at most `grace`.
pub(crate) async fn serve(
    bus: Bus,
    repository: Repository,
    tally: Arc<Tally>,
    shutdown: CancellationToken,
    grace: Duration,
) -> anyhow::Result<()> {
    let service = bus
        .client()
        .service_builder()
        .description("Answers questions about what the cache counted and how it was configured")
        .queue_group(QUEUE_GROUP)
        .metadata(metadata([]))
        .stats_handler(move |_, _| tally.to_json())
        .start(subject::RECORDER_SERVICE, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(anyhow::Error::from_boxed)?;
    let mut subscribed = Vec::with_capacity(ENDPOINTS.len());
    for row in ENDPOINTS {
        let endpoint = service.endpoint_builder().name(row.name).queue_group(row.queue_group);
        let endpoint = endpoint.add(row.subject).await.map_err(anyhow::Error::from_boxed)?;
        subscribed.push(endpoint.map(move |request| (row.handler, request)));
    }
    let questions = stream::select_all(subscribed);
    let answering = questions.for_each_concurrent(CONCURRENCY, |(handle, request)| {
        let (repository, bus) = (&repository, &bus);
        async move {
            if let Some(answer) = handle(repository, &request).await {
                respond(bus, &request, answer).await;
            }
        }
    });
    tokio::pin!(answering);
    tokio::select! {
        () = &mut answering => anyhow::bail!("the subscriptions of the service have ended"),
        () = shutdown.cancelled() => {}
    }
    service.stop().await.map_err(anyhow::Error::from_boxed)?;
    // Without a connection no question can be answered, and the subscriptions don't end.
    if bus.is_connected() && timeout(grace, answering).await.is_err() {
        tracing::warn!("the recorder stops before every question was answered");
    }
    Ok(())
}

async fn series_of(repository: &Repository, request: &Request) -> Result<Series, Refusal> {
    let question: SeriesRequest =
        parse_json(&request.message.payload, r#"{"range":"10m"} or {"range":"24h","step":"5m"}"#)?;
    let to = now() - question.ago.map(wire::Span::duration).unwrap_or_default();
    let from = to - question.range.duration();
    let step_ms = question.step.map(wire::Span::millis);
    let found = repository.series(from, to, step_ms).await.map_err(refusal_of)?;
    Ok(Series { from, to, step_ms: found.step_ms, rows: found.rows })
}

async fn history_of(repository: &Repository, request: &Request) -> Result<History, Refusal> {
    let question: HistoryRequest = parse_json(
        &request.message.payload,
        r#"{"limit":100} or {"range":"7d","limit":100,"compare":"10m"}"#,
    )?;
    if !(1..=MOST_CHANGES).contains(&question.limit) {
        let message =
            format!("limit must be a whole number from 1 to {MOST_CHANGES}, got {}", question.limit);
        return Err(Refusal::new(Code::BadRequest, message));
    }
    if question.compare.is_some() && question.limit > MOST_COMPARED {
        let message = format!(
            "limit must be a whole number from 1 to {MOST_COMPARED} with compare, got {}",
            question.limit
        );
        return Err(Refusal::new(Code::BadRequest, message));
    }
    let from = question.range.map(|range| now() - range.duration());
    let compare = question.compare.map(wire::Span::duration);
    let changes = repository.config_history(from, question.limit, compare).await.map_err(refusal_of)?;
    Ok(History { changes })
}

/// The refusal of an unknown command; `None` for a command with an endpoint of its own.
fn unknown_command(request: &Request) -> Option<Answer> {
    let asked = request.message.subject.as_str();
    let known =
        || ENDPOINTS.iter().map(|row| row.subject).filter(|known| *known != subject::ANY_STATS_COMMAND);
    if known().any(|known| known == asked) {
        return None;
    }
    let message = format!("the subject must be {}, got {}", one_of(known()), shown(asked));
    Some(Answer::refuse(Code::NotFound, message))
}

/// The present time in whole milliseconds, as answers show it.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_millisecond(now.millisecond()).unwrap_or(now)
}

fn refusal_of(error: RepositoryError) -> Refusal {
    tracing::warn!(%error, "a question about history was refused: MySQL is not available");
    let reason = match error {
        RepositoryError::TimedOut(limit) => format!("MySQL has not answered within {} s", limit.as_secs()),
        RepositoryError::Refused(_) => {
            "MySQL refuses the question, the recorder's log has the reason".to_owned()
        }
        RepositoryError::Unavailable(_) => {
            "MySQL can't be reached, the recorder's log has the reason".to_owned()
        }
    };
    Refusal::new(Code::Unavailable, format!("history can't be read now: {reason}"))
}

fn answer_of<T: serde::Serialize>(found: Result<T, Refusal>) -> Option<Answer> {
    Some(match found {
        Ok(found) => Answer::json(&found),
        Err(refusal) => Answer::Refused(refusal, None),
    })
}
