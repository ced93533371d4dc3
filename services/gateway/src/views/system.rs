//! The context of the page of the system's parts.

use std::time::SystemTime;

use charts::units;
use origin::Swept;
use origin::images::DatabaseServer;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use wire::inspect::ServicePing;
use wire::stats::{Backlog, Series};
use wire::{CacheStats, subject};

use super::figures::Figure;
use super::shell::Moment;
use crate::health::{Health, Part};

/// So many windows may wait in normal operation: each waits only for moments.
const USUALLY_WAITING: u64 = 12;

/// `system.html`, and the part of it that is fetched again and again.
#[derive(Debug, Serialize)]
pub(crate) struct SystemPage {
    parts: Vec<PartRow>,
    faults: Vec<Fault>,
    figures: Vec<Figure>,
}

/// A part of the system, or a notice that there is none of a kind.
#[derive(Debug, Serialize)]
struct PartRow {
    name: String,
    kind: &'static str,
    role: &'static str,
    state: String,
    /// `ok`, `bad`, or nothing for a standby.
    mark: &'static str,
    version: String,
    /// For how long it has been in that state, as far as that is known, and since when.
    lasting: String,
    since: Option<Moment>,
    note: String,
}

/// A fault although all parts answer, and its consequence.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Fault {
    title: String,
    meaning: &'static str,
}

/// The data of the page. The values of a part that did not answer are missing.
#[derive(Debug)]
pub(crate) struct SystemFindings<'a> {
    /// The health of each part.
    pub(crate) health: &'a Health,
    /// The services that have answered on the bus.
    pub(crate) services: Vec<ServicePing>,
    /// The counters of the worker that serves.
    pub(crate) stats: Option<CacheStats>,
    /// The backlog of the recorder.
    pub(crate) backlog: Option<Backlog>,
    /// The rows that the recorder has written lately.
    pub(crate) series: Option<Series>,
    /// How many changes the cache has not acknowledged yet.
    pub(crate) pending_count: Option<u64>,
    /// The version and the uptime of MySQL, as it reports them.
    pub(crate) database: Option<DatabaseServer>,
    /// The version of nats-server, as it was at the last connection.
    pub(crate) nats_version: String,
    /// How many connections to it this gateway has made.
    pub(crate) nats_connections: u64,
    /// Since when this gateway has been connected to it, or disconnected from it.
    pub(crate) nats_since: SystemTime,
    /// The outcome of the last sweep of this gateway.
    pub(crate) swept: Option<Swept>,
    /// The store of the files: a folder, or S3.
    pub(crate) store: &'static str,
    /// The version of this gateway.
    pub(crate) version: &'static str,
}

impl SystemPage {
    /// The page, seen from `now`.
    pub(crate) fn new(found: SystemFindings<'_>, now: OffsetDateTime) -> Self {
        let faults = faults(&found);
        let figures = figures(&found, now);
        let health = found.health;
        let rows = |name: &str, kind: Kind, part: Option<&Part>| -> Vec<PartRow> {
            let mut services: Vec<&ServicePing> =
                found.services.iter().filter(|service| service.name == name).collect();
            services
                .sort_by_key(|service| (service.said("worker"), service.said("since"), service.id.as_str()));
            let rows: Vec<PartRow> = services
                .into_iter()
                .map(|service| PartRow::of_service(kind, service, part).since(since(service), now))
                .collect();
            match part {
                Some(part) if rows.is_empty() => vec![PartRow::of(kind.none, kind, part)],
                _ => rows,
            }
        };
        let mut parts = rows(subject::GATEWAY_SERVICE, GATEWAY, None);
        if parts.is_empty() {
            let here = Part { ok: true, message: String::new() };
            let version = found.version.to_owned();
            parts.push(PartRow { version, ..PartRow::of("This gateway", GATEWAY, &here) });
        }
        parts.extend(rows(subject::MEMCACHE_SERVICE, WORKER, Some(&health.memcache)));
        parts.extend(rows(subject::RECORDER_SERVICE, RECORDER, Some(&health.recorder)));
        let nats = PartRow { version: found.nats_version, ..PartRow::of("nats-server", NATS, &health.nats) };
        let nats = nats.since(Some(found.nats_since.into()), now);
        parts.push(PartRow {
            state: if health.nats.ok { "connected" } else { "disconnected" }.to_owned(),
            ..nats
        });
        // MariaDB names itself in its version, such as "10.11.19-MariaDB-0+deb12u1".
        let said = found.database.as_ref().map_or("", |server| server.version.as_str());
        let name = if said.contains("MariaDB") { "MariaDB" } else { "MySQL" };
        let version = said.split('-').next().unwrap_or_default().to_owned();
        let up = found.database.and_then(|server| i64::try_from(server.uptime_s?).ok());
        let database = PartRow { version, ..PartRow::of(name, DATABASE, &health.mysql) };
        parts.push(database.since(up.map(|up| now - Duration::seconds(up)), now));
        parts.push(PartRow::of(found.store, STORE, &health.store));
        Self { parts, faults, figures }
    }
}

/// Since when a service has been there, as it says itself.
fn since(service: &ServicePing) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(service.said("since"), &Rfc3339).ok()
}

/// The name of a part, and its purpose.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    none: &'static str,
    role: &'static str,
}

const GATEWAY: Kind =
    Kind { name: "Gateway", none: "no gateway", role: "answers requests and keeps the images" };
const WORKER: Kind = Kind { name: "Cache worker", none: "no worker", role: "keeps image bytes in memory" };
const RECORDER: Kind =
    Kind { name: "Recorder", none: "no recorder", role: "writes windows and changes to the database" };
const NATS: Kind = Kind {
    name: "Bus",
    none: "no server",
    role: "carries messages, keeps the settings, and windows until they are recorded",
};
const DATABASE: Kind =
    Kind { name: "Database", none: "no server", role: "has a row for each image and each window" };

const STORE: Kind = Kind { name: "Image store", none: "no store", role: "keeps the image files" };

fn faults(found: &SystemFindings<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(swept) = found.swept.as_ref().filter(|swept| swept.held) {
        let title = format!(
            "The sweep stands still: no row names {} of {}, the oldest from {} ago.",
            units::count(swept.unnamed),
            units::counted(swept.files, "file", "files"),
            units::duration(u64::try_from(swept.oldest.as_millis()).unwrap_or(u64::MAX)),
        );
        faults.push(Fault {
            title,
            meaning: "These are more files than one sweep may remove (SWEEP_MAX_PERCENT), as after the restore of an old \
                      database. No file is removed. To remove them, start one gateway with SWEEP_MAX_PERCENT=100.",
        });
    }
    let mut note = |count: Option<u64>, usual: u64, one: &str, many: &str, meaning| {
        if let Some(count) = count.filter(|count| *count > usual) {
            faults.push(Fault { title: format!("{}.", units::counted(count, one, many)), meaning });
        }
    };
    note(
        found.backlog.map(|backlog| backlog.waiting_count),
        USUALLY_WAITING,
        "window waits to be written",
        "windows wait to be written",
        "The charts end before them until the recorder has caught up. No window is lost. Images are not affected.",
    );
    let stats = found.stats.as_ref();
    note(
        stats.map(|stats| stats.pending_window_count),
        USUALLY_WAITING,
        "window waits for JetStream",
        "windows wait for JetStream",
        "The worker keeps them for an hour and hands them over when JetStream takes them. Images are not affected.",
    );
    note(
        stats.map(|stats| stats.lost_window_count),
        0,
        "window was given up",
        "windows were given up",
        "Their counts are missing from the statistics: the charts have a gap there. Images are not affected.",
    );
    // While the cache answers, some changes are on their way at any moment.
    note(
        found.pending_count.filter(|_| !found.health.memcache.ok),
        0,
        "change waits for the cache",
        "changes wait for the cache",
        "They are stored, and the cache is told of them as soon as it answers.",
    );
    faults
}

fn figures(found: &SystemFindings<'_>, now: OffsetDateTime) -> Vec<Figure> {
    let windows = |count: Option<u64>| count.map(|count| units::counted(count, "window", "windows"));
    let newest = found.series.as_ref().and_then(|series| series.rows.last());
    let age = newest.map(|row| {
        let end = row.interval_start + std::time::Duration::from_millis(row.interval_ms);
        // The shortest time shown is one second, because a window takes seconds.
        units::duration(u64::try_from((now - end).whole_milliseconds()).unwrap_or(0).max(1000))
    });
    let newest_note = match (&found.series, newest) {
        (None, _) => "unknown now",
        (Some(_), None) => "none within ten minutes",
        (Some(_), Some(_)) => "ago, by the rows of the database",
    };
    let stats = found.stats.as_ref();
    vec![
        Figure::new("newest", "Newest window", age, newest_note),
        Figure::new(
            "to-write",
            "To be written",
            windows(found.backlog.map(|backlog| backlog.waiting_count)),
            "kept by JetStream until the recorder has written them",
        ),
        Figure::new(
            "to-hand-over",
            "To be handed over",
            windows(stats.map(|stats| stats.pending_window_count)),
            "kept by the worker, for an hour, until JetStream has them",
        ),
        Figure::new(
            "lost",
            "Lost",
            windows(stats.map(|stats| stats.lost_window_count)),
            "given up by the worker after that hour",
        ),
        Figure::new(
            "to-tell",
            "To be told",
            found.pending_count.map(|count| units::counted(count, "change", "changes")),
            "made, and not yet acknowledged by the cache",
        ),
        Figure::new(
            "connections",
            "Connections to NATS",
            Some(units::count(found.nats_connections)),
            "by this gateway; each after the first follows an outage",
        ),
    ]
}

impl PartRow {
    fn of(name: &str, kind: Kind, part: &Part) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.name,
            role: kind.role,
            state: if part.ok { "up" } else { "down" }.to_owned(),
            mark: if part.ok { "ok" } else { "bad" },
            version: String::new(),
            lasting: String::new(),
            since: None,
            note: if part.ok { String::new() } else { part.message.clone() },
        }
    }

    fn since(self, since: Option<OffsetDateTime>, now: OffsetDateTime) -> Self {
        // The clock of another machine may be ahead: then the length is unknown.
        let lasting = since.and_then(|since| u64::try_from((now - since).whole_milliseconds()).ok());
        let lasting = lasting.map(units::duration).unwrap_or_default();
        Self { lasting, since: since.map(|since| Moment::new(since, now)), ..self }
    }

    /// The row of a service that has answered on the bus. `part` says whether the service can be used, unless it is a
    /// standby.
    fn of_service(kind: Kind, service: &ServicePing, part: Option<&Part>) -> Self {
        let state = service.said("state");
        let is_waiting = state == ServicePing::STANDING_BY;
        let fault = part.filter(|part| !part.ok && !is_waiting);
        let name = [service.said("worker"), service.said("address"), service.name.as_str()];
        Self {
            name: name.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned(),
            kind: kind.name,
            role: if is_waiting { "takes over when the serving worker is gone" } else { kind.role },
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
            lasting: String::new(),
            since: None,
            note: fault.map(|part| part.message.clone()).unwrap_or_default(),
        }
    }
}
