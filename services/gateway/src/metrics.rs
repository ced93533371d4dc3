//! The metrics that Prometheus reads: the gateway's own counts, and with each scrape those of the worker and
//! the state of every part. So one scrape covers the system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use wire::stats::Backlog;
use wire::{CacheStats, Counters};

use crate::health::Health;
use crate::image::CacheStatus;

/// The type of the answer to a scrape.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The end of the help text of what is one for the system. Every gateway reports it, so a sum over gateways would count it
/// several times.
const SHARED: &str = " (one for the system, the same from each gateway)";

const REQUEST_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const ANSWER_BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1];

/// Counts of connections, which exist before anything else that is counted. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionMetrics {
    open: IntGauge,
    evicted: IntCounter,
}

/// A connection that is counted as open until this is dropped.
#[derive(Debug)]
pub(crate) struct Open(IntGauge);

impl ConnectionMetrics {
    /// All at zero.
    ///
    /// # Errors
    /// When a name is not a valid one, which a test rules out.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            open: IntGauge::new("pixcache_http_connections", "HTTP connections that are open")?,
            evicted: IntCounter::new(
                "pixcache_http_connections_evicted_total",
                "Idle HTTP connections closed because others waited for their place",
            )?,
        })
    }

    /// Counts a connection as open.
    pub(crate) fn open(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }

    /// Counts a connection that was closed to make room for another one.
    pub(crate) fn count_evicted(&self) {
        self.evicted.inc();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts requests that are alike.
#[derive(Debug, Clone)]
pub(crate) struct RequestCounter {
    requests: IntCounter,
    durations: Histogram,
}

impl RequestCounter {
    /// Counts a request that was answered, and the time that it took.
    pub(crate) fn count(&self, took: Duration) {
        self.requests.inc();
        self.durations.observe(took.as_secs_f64());
    }
}

/// The gateway's own counts. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    /// One for each of [`CacheStatus::ALL`], in that order, so that a hit needs no look-up.
    reads: [IntCounter; CacheStatus::ALL.len()],
    cache_answers: Histogram,
    origin_reads: IntCounter,
    waiting_reads: IntGauge,
    fills_under_way: IntGauge,
    dropped_fills: IntCounter,
    uploads: IntCounter,
    upload_bytes: IntCounter,
}

impl Metrics {
    /// All at zero, beside those of the connections.
    ///
    /// # Errors
    /// When two have the same name, which a test rules out.
    pub(crate) fn new(connections: &ConnectionMetrics) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("pixcache_http_requests_total", "HTTP requests answered"),
            &["method", "route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "pixcache_http_request_duration_seconds",
                "Time from a request's head to its answer's head",
            )
            .buckets(REQUEST_BUCKETS.to_vec()),
            &["method", "route"],
        )?;
        let read_counts = IntCounterVec::new(
            Opts::new("pixcache_reads_total", "Images read, by what the cache did"),
            &["cache_status"],
        )?;
        let cache_answers = Histogram::with_opts(
            HistogramOpts::new("pixcache_cache_answer_seconds", "Time that the cache took to answer a read")
                .buckets(ANSWER_BUCKETS.to_vec()),
        )?;
        let origin_reads =
            IntCounter::new("pixcache_origin_reads_total", "Reads of an image's row and file")?;
        let waiting_reads =
            IntGauge::new("pixcache_waiting_reads", "Reads that wait for another one to fill the cache")?;
        let fills_under_way =
            IntGauge::new("pixcache_fills_under_way", "Images on their way into the cache")?;
        let dropped_fills = IntCounter::new(
            "pixcache_dropped_fills_total",
            "Images that were not brought into the cache, because enough fills were under way",
        )?;
        let uploads = IntCounter::new("pixcache_uploads_total", "Images stored")?;
        let upload_bytes = IntCounter::new("pixcache_upload_bytes_total", "Bytes of the images stored")?;
        let all: [Box<dyn Collector>; 12] = [
            Box::new(connections.open.clone()),
            Box::new(connections.evicted.clone()),
            Box::new(requests.clone()),
            Box::new(durations.clone()),
            Box::new(read_counts.clone()),
            Box::new(cache_answers.clone()),
            Box::new(origin_reads.clone()),
            Box::new(waiting_reads.clone()),
            Box::new(fills_under_way.clone()),
            Box::new(dropped_fills.clone()),
            Box::new(uploads.clone()),
            Box::new(upload_bytes.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        let reads = CacheStatus::ALL.map(|status| read_counts.with_label_values(&[status.as_str()]));
        Ok(Self {
            registry,
            requests,
            durations,
            reads,
            cache_answers,
            origin_reads,
            waiting_reads,
            fills_under_way,
            dropped_fills,
            uploads,
            upload_bytes,
        })
    }

    /// Counts an answered request. `route` is the pattern that matched, never the path: there are as many paths
    /// as keys.
    pub(crate) fn count_request(&self, method: &str, route: &str, status: &str, took: Duration) {
        self.request_counter(method, route, status).count(took);
    }

    /// The counter of requests of one method, route and status, which saves looking for it each time.
    pub(crate) fn request_counter(&self, method: &str, route: &str, status: &str) -> RequestCounter {
        RequestCounter {
            requests: self.requests.with_label_values(&[method, route, status]),
            durations: self.durations.with_label_values(&[method, route]),
        }
    }

    /// Counts an image that was read.
    pub(crate) fn count_read(&self, status: CacheStatus, cache_time: Duration) {
        if let Some(counter) =
            CacheStatus::ALL.iter().position(|other| *other == status).and_then(|at| self.reads.get(at))
        {
            counter.inc();
        }
        if status != CacheStatus::Near {
            self.cache_answers.observe(cache_time.as_secs_f64());
        }
    }

    /// The counter of reads of the origin.
    pub(crate) fn origin_reads(&self) -> IntCounter {
        self.origin_reads.clone()
    }

    /// The gauge of reads that wait for another one's fill.
    pub(crate) fn waiting_reads(&self) -> IntGauge {
        self.waiting_reads.clone()
    }

    /// The gauge of fills under way.
    pub(crate) fn fills_under_way(&self) -> IntGauge {
        self.fills_under_way.clone()
    }

    /// The counter of fills that were dropped.
    pub(crate) fn dropped_fills(&self) -> IntCounter {
        self.dropped_fills.clone()
    }

    /// Counts an image that was stored.
    pub(crate) fn count_upload(&self, bytes: u64) {
        self.uploads.inc();
        self.upload_bytes.inc_by(bytes);
    }

    /// Everything, in Prometheus' text form.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn render(&self, system: &Snapshot) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(system.registry()?.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// The state of the rest of the system, as found for one scrape.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The state of each part.
    pub(crate) health: Health,
    /// The counts of the worker, if it answers.
    pub(crate) cache: Option<CacheStats>,
    /// Changes that the cache has not acknowledged yet, if MySQL answers.
    pub(crate) pending: Option<u64>,
    /// The windows that wait for the recorder, if JetStream answers.
    pub(crate) backlog: Option<Backlog>,
    /// Files that the last sweep left, because they are more than may go at once, if there was one.
    pub(crate) held_files: Option<u64>,
    /// When this gateway was started.
    pub(crate) started: SystemTime,
    /// How often this gateway's connection to NATS dropped messages.
    pub(crate) slow_consumers: u64,
    /// How many connections to NATS this gateway has made.
    pub(crate) connections: u64,
    /// The weight in bytes of this gateway's own copies and how many there are, unless it keeps none.
    pub(crate) near: Option<(u64, u64)>,
}

impl Snapshot {
    fn registry(&self) -> Result<Registry, prometheus::Error> {
        let registry = Registry::new();
        let up = IntGaugeVec::new(
            Opts::new("pixcache_part_up", "Whether a part of the system is there"),
            &["part"],
        )?;
        for (name, part) in self.health.parts() {
            up.with_label_values(&[name]).set(i64::from(part.ok));
        }
        registry.register(Box::new(up))?;
        let help = "1; its label says which version this gateway is";
        let info = Opts::new("pixcache_gateway_info", help).const_label("version", env!("CARGO_PKG_VERSION"));
        gauge(&registry, info, 1)?;
        register_process(&registry, self.started)?;
        if let Some(backlog) = self.backlog {
            let help =
                format!("Windows that JetStream keeps until the recorder has made rows of them{SHARED}");
            gauge(&registry, Opts::new("pixcache_waiting_windows", help), backlog.waiting_count)?;
        }
        if let Some(pending) = self.pending {
            let help = format!("Changes of images that the cache has not acknowledged yet{SHARED}");
            gauge(&registry, Opts::new("pixcache_pending_invalidations", help), pending)?;
        }
        if let Some(held) = self.held_files {
            let help =
                "Files that no row names and that the last sweep left, because they were too many at once";
            gauge(&registry, Opts::new("pixcache_sweep_held_files", help), held)?;
        }
        let help = "Times that messages to this gateway were dropped because they were read too slowly";
        counter(&registry, Opts::new("pixcache_gateway_slow_consumers_total", help), self.slow_consumers)?;
        let help = "Connections that this gateway has made to NATS";
        counter(&registry, Opts::new("pixcache_gateway_nats_connections_total", help), self.connections)?;
        if let Some((bytes, copies)) = self.near {
            let help = "Memory that this gateway's own copies of hot images take";
            gauge(&registry, Opts::new("pixcache_near_cache_bytes", help), bytes)?;
            let help = "Copies of hot images that this gateway keeps";
            gauge(&registry, Opts::new("pixcache_near_cache_copies", help), copies)?;
        }
        if let Some(cache) = &self.cache {
            register_cache(&registry, cache)?;
        }
        Ok(registry)
    }
}

fn register_cache(registry: &Registry, cache: &CacheStats) -> Result<(), prometheus::Error> {
    let opts = |name: String, help: &str| {
        Opts::new(name, format!("{help}{SHARED}")).const_label("worker", cache.worker.clone())
    };
    for (name, value) in Counters::NAMES.iter().zip(cache.counters.values()) {
        counter(registry, opts(counter_name(name), counter_help(name)), value)?;
    }
    for (name, help, value) in [
        ("lost_windows_total", "Windows given up without an acknowledgement", cache.lost_window_count),
        ("slow_consumers_total", "Times that messages to the worker were dropped", cache.slow_consumer_count),
        ("nats_connections_total", "Connections that the worker has made to NATS", cache.connection_count),
        (
            "dropped_events_total",
            "Key events left out because there were too many",
            cache.dropped_event_count,
        ),
    ] {
        counter(registry, opts(format!("pixcache_cache_{name}"), help), value)?;
    }
    for (name, help, value) in [
        ("size_bytes", "Weight of all entries", cache.cache_size_bytes),
        ("capacity_bytes", "The most that the entries may weigh", cache.capacity_bytes),
        ("keys", "Resident entries", cache.key_count),
        ("uptime_seconds", "Time since the worker's start", cache.uptime_s),
        ("serving", "Whether the worker serves gets", u64::from(cache.serving)),
        ("pending_windows", "Windows that wait for an acknowledgement", cache.pending_window_count),
        ("config_revision", "Revision of the configuration in force", cache.revision),
    ] {
        gauge(registry, opts(format!("pixcache_cache_{name}"), help), value)?;
    }
    let info = opts("pixcache_cache_info".into(), "1; its labels say what the worker is")
        .const_label("policy", cache.policy.as_str())
        .const_label("version", cache.version.clone())
        .const_label("incarnation", cache.incarnation.clone());
    gauge(registry, info, 1)
}

fn counter(registry: &Registry, opts: Opts, value: u64) -> Result<(), prometheus::Error> {
    let counter = IntCounter::with_opts(opts)?;
    counter.inc_by(value);
    registry.register(Box::new(counter))
}

fn gauge(registry: &Registry, opts: Opts, value: u64) -> Result<(), prometheus::Error> {
    let gauge = IntGauge::with_opts(opts)?;
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(Box::new(gauge))
}

/// The name by Prometheus' conventions: `hit_count` is `pixcache_cache_hits_total`.
fn counter_name(name: &str) -> String {
    let plural = match name.strip_suffix("_count") {
        Some(one) if one.ends_with('s') => format!("{one}es"),
        Some(one) => format!("{one}s"),
        None => name.to_owned(),
    };
    format!("pixcache_cache_{plural}_total")
}

/// The help text for a counter of the worker.
fn counter_help(name: &str) -> &'static str {
    match name {
        "request_count" => "Reads that reached the cache: hits and misses",
        "hit_count" => "Reads of an image that was in the cache, near hits included",
        "miss_count" => "Reads of an image that was not in the cache",
        "fill_count" => "Images put into the cache after a miss",
        "refused_fill_count" => "Images that had changed before they could be put into the cache",
        "put_count" => "Images put into the cache by request",
        "eviction_count" => "Images that left the cache by its policy",
        "evicted_bytes" => "Weight of the images that left the cache by its policy",
        "invalidation_count" => "Changes of images that the cache was told",
        "rejection_count" => "Images that were too heavy for the cache",
        "served_bytes" => "Bytes of images sent in hits",
        "near_hit_count" => "Hits that gateways served from copies of their own",
        _ => "A count of the worker",
    }
}

/// The metrics that Prometheus' own libraries have for every process, as far as Linux has the values.
fn register_process(registry: &Registry, started: SystemTime) -> Result<(), prometheus::Error> {
    let started = started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let help = "When this gateway was started, in seconds since 1970";
    gauge(registry, Opts::new("process_start_time_seconds", help), started)?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    if let Some(kb) = resident.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<u64>().ok()) {
        let help = "Memory that this gateway takes";
        gauge(registry, Opts::new("process_resident_memory_bytes", help), kb * 1024)?;
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let help = "Files and connections that this gateway has open";
        gauge(registry, Opts::new("process_open_fds", help), open.count() as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::health::Part;
    use wire::Policy;

    #[test]
    fn counters_have_conventional_names() {
        let names: Vec<String> = Counters::NAMES.iter().map(|name| counter_name(name)).collect();
        for name in ["requests", "hits", "misses", "refused_fills", "served_bytes", "evicted_bytes"] {
            assert!(names.contains(&format!("pixcache_cache_{name}_total")), "{name} in {names:?}");
        }
        for name in Counters::NAMES {
            assert_ne!(counter_help(name), counter_help(""), "{name} has no help");
        }
    }

    #[test]
    fn one_scrape_covers_the_system() {
        let connections = ConnectionMetrics::new().unwrap();
        let metrics = Metrics::new(&connections).unwrap();
        let _open = connections.open();
        drop(connections.open());
        connections.count_evicted();
        metrics.count_request("GET", "/images/{*key}", "200", Duration::from_millis(2));
        metrics.count_read(CacheStatus::Hit, Duration::from_micros(300));
        metrics.count_upload(1000);
        let part = |ok| Part { ok, message: String::new() };
        let health = Health {
            nats: part(true),
            memcache: part(true),
            recorder: part(false),
            mysql: part(true),
            store: part(true),
        };
        let cache = CacheStats {
            worker: "memcache-1".into(),
            incarnation: "a".into(),
            version: "1.0.0".into(),
            uptime_s: 5,
            policy: Policy::Lru,
            revision: 3,
            capacity_bytes: 64 << 20,
            cache_size_bytes: 1234,
            key_count: 2,
            hit_ratio: Some(0.5),
            serving: true,
            pending_window_count: 0,
            lost_window_count: 0,
            slow_consumer_count: 3,
            refused_answer_count: 0,
            connection_count: 2,
            dropped_event_count: 7,
            counters: Counters { request_count: 4, hit_count: 2, miss_count: 2, ..Counters::default() },
        };
        let system = Snapshot {
            health,
            cache: Some(cache),
            pending: Some(1),
            backlog: Some(Backlog { waiting_count: 8 }),
            held_files: Some(11),
            started: UNIX_EPOCH + Duration::from_secs(9),
            slow_consumers: 4,
            connections: 5,
            near: Some((6, 7)),
        };
        let text = metrics.render(&system).unwrap();
        for line in [
            r#"pixcache_http_requests_total{method="GET",route="/images/{*key}",status="200"} 1"#,
            r#"pixcache_reads_total{cache_status="hit"} 1"#,
            r#"pixcache_reads_total{cache_status="cache-timeout"} 0"#,
            r#"pixcache_part_up{part="recorder"} 0"#,
            r#"pixcache_cache_hits_total{worker="memcache-1"} 2"#,
            r#"pixcache_cache_size_bytes{worker="memcache-1"} 1234"#,
            "pixcache_pending_invalidations 1",
            "pixcache_waiting_windows 8",
            "pixcache_sweep_held_files 11",
            r#"pixcache_part_up{part="store"} 1"#,
            "process_start_time_seconds 9",
            r#"pixcache_cache_slow_consumers_total{worker="memcache-1"} 3"#,
            r#"pixcache_cache_nats_connections_total{worker="memcache-1"} 2"#,
            r#"pixcache_cache_dropped_events_total{worker="memcache-1"} 7"#,
            "pixcache_gateway_slow_consumers_total 4",
            "pixcache_gateway_nats_connections_total 5",
            "pixcache_http_connections 1",
            "pixcache_http_connections_evicted_total 1",
            "pixcache_upload_bytes_total 1000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
