//! What the page of the parts is given.

use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use wire::inspect::ServicePing;
use wire::stats::Backlog;
use wire::{CacheStats, subject};

use super::shell::Moment;
use crate::origin::images::DatabaseServer;
use crate::state::{Health, Part};
use crate::units;

/// `system.html`
#[derive(Debug, Serialize)]
pub struct SystemPage {
    groups: Vec<Group>,
    windows: Vec<Fact>,
}

/// Parts that are alike.
#[derive(Debug, Serialize)]
struct Group {
    title: &'static str,
    purpose: &'static str,
    parts: Vec<PartRow>,
    missing: Option<String>,
}

#[derive(Debug, Serialize)]
struct PartRow {
    name: String,
    state: String,
    /// `ok`, `bad`, or nothing for what merely waits.
    mark: &'static str,
    version: String,
    since: Option<Moment>,
    note: String,
}

#[derive(Debug, Serialize)]
struct Fact {
    label: &'static str,
    value: String,
    note: &'static str,
}

/// What was found out; a part that did not answer is missing.
#[derive(Debug)]
pub struct SystemFindings<'a> {
    /// Which parts are there.
    pub health: &'a Health,
    /// Who has answered on the bus.
    pub services: Vec<ServicePing>,
    /// What the worker that serves says.
    pub stats: Option<CacheStats>,
    /// What waits for the recorder.
    pub backlog: Option<Backlog>,
    /// What MySQL says of itself.
    pub database: Option<DatabaseServer>,
    /// The version of nats-server, as it was at the last connection.
    pub nats_version: String,
    /// How many connections to it this gateway has made.
    pub nats_connections: u64,
    /// That of this gateway.
    pub version: &'static str,
}

impl SystemPage {
    /// The page, seen from `now`.
    pub fn new(found: SystemFindings<'_>, now: OffsetDateTime) -> Self {
        let health = found.health;
        let nats = PartRow {
            version: found.nats_version,
            note: units::counted(found.nats_connections, "connection made", "connections made"),
            ..PartRow::of("nats-server", &health.nats)
        };
        let database = PartRow {
            version: found.database.as_ref().map_or_else(String::new, |server| server.version.clone()),
            since: found.database.and_then(|server| server.uptime_s).map(|uptime_s| {
                Moment::new(now - Duration::seconds(i64::try_from(uptime_s).unwrap_or(0)), now)
            }),
            ..PartRow::of("MySQL", &health.mysql)
        };
        let of = |name: &str| {
            let mut found: Vec<&ServicePing> =
                found.services.iter().filter(|service| service.name == name).collect();
            found.sort_by_key(|service| (service.said("worker"), service.said("since"), service.id.as_str()));
            found
        };
        let rows = |name: &str, part: Option<&Part>| -> Vec<PartRow> {
            of(name).into_iter().map(|service| PartRow::of_service(service, part, now)).collect()
        };
        let mut gateways = rows(subject::GATEWAY_SERVICE, None);
        if gateways.is_empty() {
            let here = Part { ok: true, message: "answers you".to_owned() };
            gateways
                .push(PartRow { version: found.version.to_owned(), ..PartRow::of("this gateway", &here) });
        }
        let groups = vec![
            Group::new("Gateways", "take requests, keep the images", gateways, None),
            Group::new(
                "Workers",
                "keep image bytes in memory; one serves, others stand by",
                rows(subject::MEMCACHE_SERVICE, Some(&health.memcache)),
                Some(&health.memcache),
            ),
            Group::new(
                "Recorder",
                "writes what is counted to the database",
                rows(subject::RECORDER_SERVICE, Some(&health.recorder)),
                Some(&health.recorder),
            ),
            Group::new("Servers", "carry messages and rows", vec![nats, database], None),
        ];
        Self { groups, windows: windows(found.stats.as_ref(), found.backlog.as_ref()) }
    }
}

fn windows(stats: Option<&CacheStats>, backlog: Option<&Backlog>) -> Vec<Fact> {
    let shown = |count: Option<u64>| {
        count.map_or_else(|| "unknown now".to_owned(), |count| units::counted(count, "window", "windows"))
    };
    vec![
        Fact {
            label: "Not written yet",
            value: shown(backlog.map(|backlog| backlog.waiting_count)),
            note: "kept by JetStream until the recorder has made rows of them",
        },
        Fact {
            label: "Not acknowledged yet",
            value: shown(stats.map(|stats| stats.pending_window_count)),
            note: "kept by the worker, for an hour, until JetStream has them",
        },
        Fact {
            label: "Lost",
            value: shown(stats.map(|stats| stats.lost_window_count)),
            note: "given up by the worker after that hour",
        },
    ]
}

impl Group {
    fn new(title: &'static str, purpose: &'static str, parts: Vec<PartRow>, part: Option<&Part>) -> Self {
        let missing = part.filter(|_| parts.is_empty()).map(|part| part.message.clone());
        Self { title, purpose, parts, missing }
    }
}

impl PartRow {
    fn of(name: &str, part: &Part) -> Self {
        Self {
            name: name.to_owned(),
            state: if part.ok { "up" } else { "down" }.to_owned(),
            mark: if part.ok { "ok" } else { "bad" },
            version: String::new(),
            since: None,
            note: if part.ok { String::new() } else { part.message.clone() },
        }
    }

    /// One that has answered on the bus. Whether it can be used is another question, which `part` answers,
    /// but for those that stand by.
    fn of_service(service: &ServicePing, part: Option<&Part>, now: OffsetDateTime) -> Self {
        let state = service.said("state");
        let is_waiting = state == ServicePing::STANDING_BY;
        let fault = part.filter(|part| !part.ok && !is_waiting);
        let name = [service.said("worker"), service.said("address"), &service.name];
        Self {
            name: name.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned(),
            state: match (fault, state) {
                (Some(_), _) => "degraded".to_owned(),
                (None, "") => "up".to_owned(),
                (None, state) => state.to_owned(),
            },
            mark: match (fault, is_waiting) {
                (Some(_), _) => "bad",
                (None, true) => "",
                (None, false) => "ok",
            },
            version: service.version.clone(),
            since: OffsetDateTime::parse(service.said("since"), &Rfc3339).ok().map(|at| Moment::new(at, now)),
            note: fault.map(|part| part.message.clone()).unwrap_or_default(),
        }
    }
}
