//! The endpoints: each is one row.

use async_nats::service::Request;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use runtime::clock::Moment;
use runtime::service::Answer;
use wire::reply::Code;
use wire::subject;
use wire::words::{one_of, shown};

use super::clear::clear;
use super::config::{self, config};
use super::get::get;
use super::handled::Handled;
use super::invalidate::invalidate;
use super::keys::keys;
use super::near_hits::near_hits;
use super::put::put;
use super::stats::stats;
use super::watch::watch;
use crate::live::Live;
use crate::worker::Worker;

/// The queue group of the endpoints: one of its members gets each message.
pub(super) const QUEUE_GROUP: &str = "memcache";
/// The queue group of the endpoint for unknown commands. A server delivers a message to one matching subscription
/// in each group. In a group with the others, this endpoint would get some of the known commands.
const UNKNOWN_QUEUE_GROUP: &str = "memcache-unknown";

/// When an endpoint stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Get and put: first, because an entry that is served while invalidations no longer arrive could be stale.
    Reads,
    /// All others.
    Rest,
}

/// One endpoint of the service.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) subject: &'static str,
    /// The commands, as the refusal of an unknown one lists them. None for what only gateways ask.
    commands: &'static [&'static str],
    pub(super) queue_group: &'static str,
    pub(super) group: Group,
    pub(super) handler: Handler,
}

/// The work of an endpoint on a request.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// It is handled as fast as it is read.
    AtOnce(fn(&Worker, &Request) -> Handled),
    /// It takes longer than reading. Requests that come meanwhile have to wait. The moment is that of its arrival.
    InTurn(for<'a> fn(&'a Worker, &'a Live, &'a Request, Moment) -> BoxFuture<'a, Handled>),
}

impl Row {
    const fn new(
        name: &'static str,
        subject: &'static str,
        commands: &'static [&'static str],
        handler: Handler,
    ) -> Self {
        Self { name, subject, commands, queue_group: QUEUE_GROUP, group: Group::Rest, handler }
    }

    const fn of_reads(self) -> Self {
        Self { group: Group::Reads, ..self }
    }

    const fn in_queue_group(self, queue_group: &'static str) -> Self {
        Self { queue_group, ..self }
    }
}

/// The endpoints, in the order in which they are subscribed: invalidations first, because a get must not be served before
/// they can arrive.
pub(super) const ENDPOINTS: [Row; 10] = {
    use Handler::{AtOnce, InTurn};
    [
        Row::new("invalidate", subject::INVALIDATE, &["cache.invalidate.<key>"], AtOnce(invalidate)),
        Row::new(
            "clear",
            subject::CLEAR,
            &[subject::CLEAR],
            InTurn(|worker, live, request, arrived| clear(worker, live, request, arrived).boxed()),
        ),
        Row::new(
            "config",
            subject::ANY_CONFIG_COMMAND,
            &config::COMMANDS,
            InTurn(|worker, live, request, arrived| config(worker, live, request, arrived).boxed()),
        ),
        Row::new(
            "get",
            subject::GET,
            &["cache.get.<key>"],
            AtOnce(|worker, request| get(worker, request).into()),
        )
        .of_reads(),
        Row::new(
            "put",
            subject::PUT,
            &["cache.put.<key>"],
            InTurn(|worker, _, request, _| put(worker, request).boxed()),
        )
        .of_reads(),
        Row::new(
            "stats",
            subject::STATS,
            &[subject::STATS],
            AtOnce(|worker, request| stats(worker, request).into()),
        ),
        Row::new(
            "keys",
            subject::KEYS,
            &[subject::KEYS],
            AtOnce(|worker, request| keys(worker, request).into()),
        ),
        Row::new(
            "watch",
            subject::WATCH,
            &[subject::WATCH],
            AtOnce(|worker, request| watch(worker, request).into()),
        ),
        Row::new(
            "near_hits",
            subject::NEAR_HITS,
            &[],
            AtOnce(|worker, request| near_hits(worker, request).into()),
        ),
        Row::new(
            "unknown",
            subject::ANY_COMMAND,
            &[],
            AtOnce(|_, request| unknown(request.message.subject.as_str())),
        )
        .in_queue_group(UNKNOWN_QUEUE_GROUP),
    ]
};

/// The refusal of an unknown command. The pattern of this endpoint covers known ones too, which their own endpoints answer.
fn unknown(asked: &str) -> Handled {
    if ENDPOINTS.iter().any(|row| row.subject == asked) {
        return Handled::Elsewhere;
    }
    let known = ENDPOINTS.iter().flat_map(|row| row.commands);
    Answer::refuse(Code::NotFound, format!("the subject must be {}, got {}", one_of(known), shown(asked)))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_endpoint_has_a_name_and_a_subject_of_its_own() {
        let names: BTreeSet<_> = ENDPOINTS.iter().map(|row| row.name).collect();
        let subjects: BTreeSet<_> = ENDPOINTS.iter().map(|row| row.subject).collect();
        assert_eq!((names.len(), subjects.len()), (ENDPOINTS.len(), ENDPOINTS.len()));
        assert!(
            ENDPOINTS.iter().all(|row| (row.group == Group::Reads) == ["get", "put"].contains(&row.name))
        );
        assert_eq!(ENDPOINTS[0].subject, subject::INVALIDATE);
    }

    #[test]
    fn an_unknown_command_is_refused_and_a_known_one_is_left_to_its_endpoint() {
        assert!(matches!(unknown(subject::KEYS), Handled::Elsewhere));
        let Handled::Now(Answer::Refused(refusal, None)) = unknown("cache.kyes") else {
            panic!("it must be refused")
        };
        assert_eq!(
            refusal.message,
            "the subject must be cache.invalidate.<key>, cache.clear, cache.config.get, cache.config.set, \
             cache.config.refresh, cache.get.<key>, cache.put.<key>, cache.stats, cache.keys or cache.watch, got \"cache.kyes\""
        );
    }
}
