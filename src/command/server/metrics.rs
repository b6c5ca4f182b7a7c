//! Metrics for Prometheus (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::time::Duration;

use embercask::{Namespace, Stats, Store};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::limits::NamespaceLimits;
use crate::common::reserved;

/// Buckets from a hit in memory to a slow disk.
const SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0,
];

pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    pub(super) connections: IntGauge,
    pub(super) watchers: IntGauge,
    disconnected: IntCounter,
}

/// How a request was answered.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) took: Duration,
    /// Bytes of the body.
    pub(super) bytes: u64,
}

impl Metrics {
    #[expect(
        clippy::expect_used,
        reason = "names and labels are constants, and a test creates them all"
    )]
    pub(super) fn new() -> Metrics {
        let registry = Registry::new();
        let options = |name: &str, help: &str| Opts::new(format!("embercask_{name}"), help);
        let good = "a good name";
        let metrics = Metrics {
            requests: IntCounterVec::new(
                options("requests_total", "Requests answered"),
                &["face", "operation", "status"],
            )
            .expect(good),
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "embercask_request_seconds",
                    "Time from the head of a request to its response, in seconds",
                )
                .buckets(SECONDS.to_vec()),
                &["face", "operation"],
            )
            .expect(good),
            received_bytes: IntCounter::with_opts(options("received_bytes_total", "Bytes of request bodies"))
                .expect(good),
            sent_bytes: IntCounter::with_opts(options("sent_bytes_total", "Bytes of response bodies")).expect(good),
            connections: IntGauge::with_opts(options("connections", "Open connections")).expect(good),
            watchers: IntGauge::with_opts(options("watchers", "Clients that watch a namespace")).expect(good),
            disconnected: IntCounter::with_opts(options(
                "disconnected_total",
                "Requests that ended without a response",
            ))
            .expect(good),
            registry,
        };
        let all: [Box<dyn prometheus::core::Collector>; 7] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.received_bytes.clone()),
            Box::new(metrics.sent_bytes.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.watchers.clone()),
            Box::new(metrics.disconnected.clone()),
        ];
        for metric in all {
            metrics.registry.register(metric).expect("each name once");
        }
        metrics
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received_bytes.inc_by(bytes);
    }

    /// A request for this operation was answered.
    pub(super) fn answered(&self, face: &str, operation: &str, answer: &Answered) {
        self.requests
            .with_label_values(&[face, operation, &answer.status.to_string()])
            .inc();
        self.seconds
            .with_label_values(&[face, operation])
            .observe(answer.took.as_secs_f64());
        self.sent_bytes.inc_by(answer.bytes);
    }

    /// A request ended without a response.
    pub(super) fn disconnected(&self) {
        self.disconnected.inc();
    }

    /// All metrics as text, with those of the store.
    pub(super) fn text(&self, store: &Store, limits: &NamespaceLimits) -> String {
        let mut text = Vec::new();
        // Cannot fail: writes consistent metrics to memory.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        let mut text = String::from_utf8(text).unwrap_or_default();
        let stats = reserved::stats(store);
        let kinds = [
            ("gauge", gauges(&stats)),
            ("gauge", snapshot_gauges(&stats)),
            ("counter", counters(&stats)),
        ];
        for (kind, numbers) in kinds {
            for (name, help, number) in numbers {
                text += &format!(
                    "# HELP embercask_store_{name} {help}\n# TYPE embercask_store_{name} {kind}\nembercask_store_{name} {number}\n"
                );
            }
        }
        text += &limited_namespaces(limits, store);
        text
    }
}

/// Namespaces that have a limit; of all of them there may be too many.
fn limited_namespaces(limits: &NamespaceLimits, store: &Store) -> String {
    let limited = limits.limited(store);
    if limited.is_empty() {
        return String::new();
    }
    let gauge = |name: &str, help: &str, number: fn(&Namespace) -> u64| {
        let name = format!("embercask_namespace_{name}");
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
        for namespace in &limited {
            let (label, number) = (label(&namespace.name()), number(namespace));
            text += &format!("{name}{{namespace=\"{label}\"}} {number}\n");
        }
        text
    };
    let held = gauge(
        "live_bytes",
        "Bytes of the records of a namespace that has a limit",
        Namespace::live_bytes,
    );
    held + &gauge("max_bytes", "Limit of a namespace, in bytes", |namespace| {
        namespace.max_bytes().unwrap_or(u64::MAX)
    })
}

/// The value of a label, escaped.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Name, description and number of a metric.
type Metric = (&'static str, &'static str, u64);

fn gauges(stats: &Stats) -> Vec<Metric> {
    vec![
        ("keys", "Keys", stats.keys),
        ("namespaces", "Namespaces", stats.namespaces),
        ("live_bytes", "Bytes of live records", stats.live_bytes),
        ("dead_bytes", "Bytes of puts that are no longer live", stats.dead_bytes),
        ("expired_bytes", "Dead bytes that have expired", stats.expired_bytes),
        ("segment_bytes", "Bytes of all segments", stats.segment_bytes),
        ("segments", "Segments", stats.segments.len() as u64),
        (
            "used_bytes",
            "Bytes of segments, hints and reserve",
            stats.space.used_bytes,
        ),
        (
            "grace_bytes",
            "Bytes that expired too recently to be reclaimed",
            stats.space.grace_bytes,
        ),
        (
            "pinned_bytes",
            "Bytes of removed segments that values, snapshots and transactions in use keep",
            stats.space.pinned_bytes,
        ),
        (
            "owed_bytes",
            "Bytes above the bound that compaction keeps to",
            stats.space.owed_bytes,
        ),
        (
            "scrub_damaged_segments",
            "Segments that scrubbing found damaged or could not read",
            stats.scrub.damaged_segments,
        ),
        (
            "scrub_last_pass_seconds",
            "When the last pass of scrubbing ended, in seconds since the epoch; 0 if none has",
            stats.scrub.last_pass_ms.unwrap_or(0) / 1000,
        ),
        (
            "index_bytes",
            "Memory of the indexes",
            stats.keydir_bytes + stats.key_order_bytes + stats.expiry_queue_bytes,
        ),
        ("disk_full", "Whether the disk was found full", stats.disk_full.into()),
        (
            "poisoned",
            "Whether writes are refused",
            stats.poisoned.is_some().into(),
        ),
    ]
}

fn snapshot_gauges(stats: &Stats) -> Vec<Metric> {
    vec![
        ("snapshots", "Open snapshots", stats.snapshots.open),
        (
            "snapshot_oldest_seconds",
            "How long the oldest open snapshot has been held, in seconds; 0 without any",
            stats.snapshots.oldest.as_secs(),
        ),
        (
            "snapshot_kept_records",
            "Replaced records that open snapshots keep",
            stats.snapshots.kept_records,
        ),
        (
            "snapshot_memory_bytes",
            "Memory that open snapshots keep",
            stats.snapshots.memory_bytes,
        ),
        (
            "snapshot_disk_bytes",
            "Disk space of segments that only open snapshots need",
            stats.snapshots.disk_bytes,
        ),
    ]
}

fn counters(stats: &Stats) -> Vec<Metric> {
    vec![
        ("written_bytes_total", "Bytes written to the log", stats.written_bytes),
        ("syncs_total", "Data syncs", stats.syncs),
        ("expired_total", "Keys that have expired", stats.expired),
        ("compaction_runs_total", "Runs of compaction", stats.compaction.runs),
        (
            "compaction_written_bytes_total",
            "Bytes that compaction wrote",
            stats.compaction.written_bytes,
        ),
        (
            "scrub_passes_total",
            "Passes of scrubbing over all sealed segments",
            stats.scrub.passes,
        ),
        ("scrub_bytes_total", "Bytes that scrubbing read", stats.scrub.bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_tell_what_snapshots_hold() {
        let store = Store::in_memory().unwrap();
        let namespace = store.namespace("N").unwrap();
        namespace.put("key", "value").unwrap();
        let told = || {
            let of = |name: &str| {
                let metrics = snapshot_gauges(&store.stats());
                let found = metrics.into_iter().find(|(found, ..)| *found == name);
                found.map(|(_, _, number)| number).unwrap()
            };
            ["snapshots", "snapshot_kept_records", "snapshot_memory_bytes"].map(of)
        };
        assert_eq!(told(), [0, 0, 0]);
        let snapshot = store.snapshot().unwrap();
        namespace.put("key", "another").unwrap();
        let [open, kept, memory] = told();
        assert!((open, kept) == (1, 1) && memory > 0, "{open} {kept} {memory}");
        drop(snapshot);
        assert_eq!(told()[..2], [0, 0]);
    }
}
