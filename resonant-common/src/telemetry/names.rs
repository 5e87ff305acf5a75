//! The one table of metric names.
//!
//! Labels are closed sets: names given in code, enums of the crate; never keys, SQL, URLs or users' input.
//! The four names of the scaling guide (`requests_total`, `request_duration_seconds`, `active_connections`,
//! `queue_depth`) keep the guide's meaning and labels and come only from the HTTP layer, the pools and the queues; its alerts'
//! `cpu_usage` and `memory_usage` come from the collector of the process.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instrument {
    /// Only rises.
    Counter,
    /// A level.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The exact Prometheus name.
    pub name: &'static str,
    /// What it is.
    pub instrument: Instrument,
    /// The unit, as the `metrics` crate spells it (`"seconds"`, `"bytes"`, `"count"`).
    pub unit: Option<&'static str>,
    /// The HELP text.
    pub help: &'static str,
    /// The names of its labels, in order.
    pub labels: &'static [&'static str],
    /// The upper bounds of a histogram's buckets, in its unit; empty for others. Without them a Prometheus exporter makes
    /// summaries, over which `histogram_quantile` answers nothing.
    pub buckets: &'static [f64],
}

/// Of times within a process or a data centre, in seconds.
const FAST: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Of answers to users, in seconds: OpenTelemetry's.
const ANSWERS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Of work that may take long, in seconds.
const WORK: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Of items.
const ITEMS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// The row of a name.
pub fn find(name: &str) -> Option<&'static Metric> {
    TABLE.iter().find(|metric| metric.name == name)
}

macro_rules! table {
    ($($constant:ident = $instrument:ident $name:literal $([$unit:literal])? {$($label:literal),*} $help:literal $(in $buckets:ident)?;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub const $constant: Metric = Metric {
                name: $name,
                instrument: Instrument::$instrument,
                unit: table!(@unit $($unit)?),
                help: $help,
                labels: &[$($label),*],
                buckets: table!(@buckets $($buckets)?),
            };
        )*

        /// Every metric the family emits.
        pub const TABLE: &[Metric] = &[$($constant),*];
    };
    (@unit) => { None };
    (@unit $unit:literal) => { Some($unit) };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}

table! {
    // The guide's four.
    REQUESTS = Counter "requests_total" {"method", "endpoint", "status"} "Requests answered.";
    REQUEST_DURATION = Histogram "request_duration_seconds" ["seconds"] {"method", "endpoint"} "Time to answer a request." in ANSWERS;
    ACTIVE_CONNECTIONS = Gauge "active_connections" {"service"} "Connections in use.";
    QUEUE_DEPTH = Gauge "queue_depth" {"queue"} "Messages not yet finished.";

    // The process: the inputs of the guide's alerts on processor and memory.
    CPU_USAGE = Gauge "cpu_usage" {} "Processor time used, in percent of what the process may use.";
    MEMORY_USAGE = Gauge "memory_usage" {} "Memory used, in percent of what the process may use.";
    CPU_LIMIT = Gauge "resonant_process_cpu_limit_cores" {} "Processor cores the process may use.";
    MEMORY_LIMIT = Gauge "resonant_process_memory_limit_bytes" ["bytes"] {} "Memory the process may use.";
    MEMORY_RESIDENT = Gauge "resonant_process_memory_resident_bytes" ["bytes"] {} "Memory of the process that is in RAM.";

    // Telemetry itself.
    OVERFLOW = Counter "resonant_telemetry_overflow_total" {"label"} "Label values that were replaced by other because there were too many.";

    // resonant-db. The db_client names are OpenTelemetry's.
    DB_CONNECTIONS = Gauge "db_client_connection_count" {"db_client_connection_pool_name", "db_client_connection_state"} "Connections of the pool by state.";
    DB_CONNECTIONS_MAX = Gauge "db_client_connection_max" {"db_client_connection_pool_name"} "The most connections the pool opens.";
    DB_PENDING = Gauge "db_client_connection_pending_requests" {"db_client_connection_pool_name"} "Callers waiting for a connection.";
    DB_TIMEOUTS = Counter "db_client_connection_timeouts_total" {"db_client_connection_pool_name"} "Callers that waited too long for a connection.";
    DB_CREATE_TIME = Histogram "db_client_connection_create_time_seconds" ["seconds"] {"db_client_connection_pool_name"} "Time to open a connection." in FAST;
    DB_WAIT_TIME = Histogram "db_client_connection_wait_time_seconds" ["seconds"] {"db_client_connection_pool_name"} "Time a caller waited for a connection." in FAST;
    DB_USE_TIME = Histogram "db_client_connection_use_time_seconds" ["seconds"] {"db_client_connection_pool_name"} "Time a connection was held." in FAST;
    DB_ROUTED = Counter "resonant_db_routed_total" {"database", "role"} "Statements by the role of the node they went to.";
    DB_READS = Counter "resonant_db_reads_total" {"database", "connection"} "Reads that were answered, by their connection: shared with other reads, or their own.";
    DB_RETRIES = Counter "resonant_db_retries_total" {"database", "reason"} "Attempts after the first.";
    DB_EJECTIONS = Counter "resonant_db_ejections_total" {"database"} "Replicas taken out of rotation.";
    DB_REPLICA_LAG = Gauge "resonant_db_replica_lag_seconds" ["seconds"] {"database", "node"} "How far a node is behind the primary at most, when it was last asked; NaN while that is not known.";
    DB_ROUTES = Counter "resonant_db_shard_routes_total" {"database", "route"} "Sharded statements by kind of route.";
    DB_SHARD_COMPILED = Counter "resonant_db_shard_routes_compiled_total" {"database"} "Routes that were not in the cache.";
    DB_SHARD_DOWN = Gauge "resonant_db_shard_down" {"database", "shard"} "1 while a shard keeps failing and is left alone, else 0.";
    DB_SHARD_MERGED = Counter "resonant_db_shard_merged_rows_total" {"database"} "Rows of several shards made one answer.";
    DB_SHARD_STATEMENTS = Counter "resonant_db_shard_statements_total" {"database", "shard", "outcome"} "Statements meant for a shard by outcome.";
    DB_SHARD_TIME = Histogram "resonant_db_shard_duration_seconds" ["seconds"] {"database", "shard"} "Time a shard took for a statement." in FAST;

    // resonant-cache.
    CACHE_OPERATIONS = Counter "resonant_cache_operations_total" {"cache", "operation", "result"} "Cache calls by result.";
    CACHE_ENTRIES = Gauge "resonant_cache_entries" {"cache"} "Entries held in process.";
    CACHE_BYTES = Gauge "resonant_cache_bytes" ["bytes"] {"cache"} "Bytes held in process.";
    CACHE_EVICTIONS = Counter "resonant_cache_evictions_total" {"cache", "reason"} "Entries removed by the cache itself.";
    CACHE_LOADS = Histogram "resonant_cache_load_duration_seconds" ["seconds"] {"cache", "outcome"} "Time loaders took." in WORK;
    CACHE_COALESCED = Counter "resonant_cache_coalesced_total" {"cache"} "Callers served by somebody else's load.";
    CACHE_INVALIDATIONS = Counter "resonant_cache_invalidations_total" {"cache", "kind"} "Changes the store announced to this process.";
    CACHE_JOURNAL = Gauge "resonant_cache_journal_entries" {"cache"} "Changes the store has not heard of yet.";
    CACHE_LEASE_WAITS = Counter "resonant_cache_lease_waits_total" {"cache"} "Loads that waited for another process's.";
    CACHE_STORE_ANNOUNCED = Gauge "resonant_cache_store_announced" {"cache"} "Whether the store announces every change.";
    CACHE_STORE_TIME = Histogram "resonant_cache_store_duration_seconds" ["seconds"] {"cache", "operation"} "Time calls to the store took." in FAST;
    CACHE_STORE_UP = Gauge "resonant_cache_store_up" {"cache"} "Whether the store answers.";

    // resonant-queue.
    QUEUE_PUBLISHED = Counter "resonant_queue_published_total" {"queue"} "Messages confirmed by the engine.";
    QUEUE_FINISHED = Counter "resonant_queue_finished_total" {"queue", "outcome"} "Messages finished by outcome.";
    QUEUE_RETRIES = Counter "resonant_queue_retries_total" {"queue"} "Deliveries after the first.";
    QUEUE_OLDEST_AGE = Gauge "resonant_queue_oldest_age_seconds" ["seconds"] {"queue"} "Age of the oldest message not yet finished.";
    QUEUE_IN_FLIGHT = Gauge "resonant_queue_inflight" {"queue"} "Messages handed to a handler.";
    QUEUE_PARKED = Gauge "resonant_queue_parked_keys" {"queue"} "Keys that wait for a person because a message of theirs keeps failing.";
    QUEUE_WANTED_WORKERS = Gauge "resonant_queue_wanted_workers" {"queue"} "Workers that what waits and runs asks for, at most one for each partition.";
    QUEUE_PROCESS_TIME = Histogram "resonant_queue_process_duration_seconds" ["seconds"] {"queue"} "Time a handler took." in WORK;
    QUEUE_SEQUENCE_FAULTS = Counter "resonant_queue_sequence_faults_total" {"queue", "fault"} "Gaps, repeats and inversions seen by the sequence check.";

    // resonant-ha.
    HA_STATE = Gauge "resonant_ha_state" {"cluster", "state"} "1 for the state the manager is in, 0 for the others.";
    HA_EPOCH = Gauge "resonant_ha_epoch" {"cluster"} "The epoch of the topology last published.";
    HA_LEASE_REMAINING = Gauge "resonant_ha_lease_remaining_seconds" ["seconds"] {"cluster"} "How long this manager may still act, 0 when it may not.";
    HA_REFUSALS = Counter "resonant_ha_refusals_total" {"cluster", "reason"} "Actions not taken, by the reason that came newly to hold.";
    HA_EVENTS = Counter "resonant_ha_events_total" {"cluster", "event"} "Events of the manager by kind.";
    HA_PRIMARIES = Gauge "resonant_ha_writable_primaries" {"cluster"} "Regions that take writes as a primary; more than 1 is an alarm.";
    HA_REGION_UP = Gauge "resonant_ha_region_up" {"cluster", "region"} "1 while the region answers its probe in good order.";
    HA_DETECTION = Histogram "resonant_ha_detection_duration_seconds" ["seconds"] {"cluster"} "Time from the first failed probe of the primary to the intent to fail over." in WORK;
    HA_PROMOTION = Histogram "resonant_ha_promotion_duration_seconds" ["seconds"] {"cluster", "kind"} "Time from an intent to the publication of its topology." in WORK;

    // resonant-batch.
    BATCH_ITEMS = Counter "resonant_batch_items_total" {"batch", "outcome"} "Items by outcome.";
    BATCH_BATCHES = Counter "resonant_batch_batches_total" {"batch", "trigger"} "Batches by what set them off.";
    BATCH_SIZE = Histogram "resonant_batch_size_items" {"batch"} "Items in a batch." in ITEMS;
    BATCH_WAIT = Histogram "resonant_batch_wait_duration_seconds" ["seconds"] {"batch"} "Time the first item of a batch waited." in FAST;
    BATCH_PROCESS = Histogram "resonant_batch_process_duration_seconds" ["seconds"] {"batch", "outcome"} "Time a processor took." in WORK;
    BATCH_IN_FLIGHT = Gauge "resonant_batch_inflight_batches" {"batch"} "Batches being processed.";
    BATCH_REJECTED = Counter "resonant_batch_rejected_total" {"batch", "reason"} "Items refused at the door.";
    BATCH_DEDUPLICATED = Counter "resonant_batch_deduplicated_total" {"batch"} "Items that shared an equal item's run.";
    BATCH_ISOLATION_RUNS = Counter "resonant_batch_isolation_runs_total" {"batch"} "Extra runs to find the bad items of failed batches.";

    // resonant-scale.
    SCALING_REPLICAS = Gauge "resonant_scaling_replicas" {"target", "kind"} "Replicas of a target: wanted, existing, ready, and the bounds.";
    SCALING_DECISIONS = Counter "resonant_scaling_decisions_total" {"target", "direction"} "Decisions by the way they went.";
    SCALING_BLOCKED = Counter "resonant_scaling_blocked_total" {"target", "reason"} "Decisions that something held back, by what it was.";
    SCALING_FAILURES = Counter "resonant_scaling_failures_total" {"target", "operation"} "Metrics that could not be read, and targets that could not be read or changed.";
    SCALING_FAILING = Gauge "resonant_scaling_failing" {"target", "operation"} "1 while a metric cannot be read, or a target cannot be read or changed.";
    SCALING_LAST_CHANGE = Gauge "resonant_scaling_last_change_timestamp_seconds" ["seconds"] {"target"} "When the number of replicas was last changed, in Unix time.";

    // resonant-health.
    HEALTH_STATUS = Gauge "resonant_health_status" {"probe", "state"} "1 for the state a probe is in, 0 for the others.";
    HEALTH_CHECK_STATUS = Gauge "resonant_health_check_status" {"check", "state"} "1 for the state a check is in, 0 for the others.";
    HEALTH_CHECK_TIME = Histogram "resonant_health_check_duration_seconds" ["seconds"] {"check"} "Time a check took." in FAST;
    HEALTH_CHECK_LAST_SUCCESS = Gauge "resonant_health_check_last_success_timestamp_seconds" ["seconds"] {"check"} "When a check last passed, in Unix time.";
    HEALTH_TRANSITIONS = Counter "resonant_health_transitions_total" {"check", "to"} "Changes of a check's state by the new state.";
    HEALTH_CHECK_RUNS = Counter "resonant_health_check_runs_total" {"check", "outcome"} "Runs of a check by outcome.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let guide = [
            "requests_total",
            "request_duration_seconds",
            "active_connections",
            "queue_depth",
            "cpu_usage",
            "memory_usage",
        ];
        let mut names: Vec<_> = TABLE.iter().map(|metric| metric.name).collect();
        for metric in TABLE {
            let name = metric.name;
            let ours = name.starts_with("resonant_")
                || name.starts_with("db_client_")
                || guide.contains(&name);
            assert!(ours, "{name} has no prefix of the family");
            assert_eq!(
                name.ends_with("_total"),
                metric.instrument == Instrument::Counter,
                "{name}"
            );
            assert_eq!(name.ends_with("_seconds"), metric.unit == Some("seconds"), "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
            assert!(metric.labels.len() <= 3, "{name}");
            assert_eq!(
                !metric.buckets.is_empty(),
                metric.instrument == Instrument::Histogram,
                "{name}"
            );
            assert!(metric.buckets.is_sorted_by(|one, next| one < next), "{name}");
            assert_eq!(find(name), Some(metric));
            if let Some(unit) = metric.unit {
                assert!(metrics::Unit::from_string(unit).is_some(), "{name}: {unit} is no unit");
            }
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len(), "a name stands twice");
    }
}
