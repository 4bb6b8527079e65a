//! The text that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt;

use anyserve_core::{CapabilityLoad, Snapshot, StoreLoad};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::encode::{Row, counter, counters, gauge, gauges, page};
use super::{CertificateDates, Metrics, ModelMetrics};

/// Everything one scrape shows.
#[derive(Debug)]
struct Scrape {
    models: Vec<std::sync::Arc<ModelMetrics>>,
    inside: Snapshot,
    certificates: CertificateDates,
    draining: bool,
}

/// The metrics in `OpenMetrics` text.
pub(crate) fn text(metrics: &Metrics, inside: Snapshot, certificates: CertificateDates, draining: bool) -> String {
    page(Scrape { models: metrics.all(), inside, certificates, draining })
}

impl prometheus_client::collector::Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.inside(&mut encoder)?;
        self.capabilities(&mut encoder)?;
        self.dispatch(&mut encoder)?;
        self.certificates.encode(&mut encoder)?;
        self.inside.objects.as_ref().map_or(Ok(()), |store| objects(store, &mut encoder))
    }
}

// === impl Scrape ===

impl Scrape {
    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ended = self.models.iter().flat_map(|model| model.ended().map(move |end| (model, end)));
        let rows = ended.map(|(model, (code, count))| (vec![("model", model.label.as_str()), ("code", code)], count));
        counters(encoder, "requests", "Requests that ended, by model and code", rows)?;
        let rows = self.models.iter().map(|model| {
            let in_flight = model.in_flight.load(std::sync::atomic::Ordering::Relaxed);
            (vec![("model", model.label.as_str())], in_flight)
        });
        gauges(encoder, "requests_in_flight", "Requests that have begun and not ended, by model", rows)
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Seconds from a request's arrival to its end";
        let mut family = encoder.encode_descriptor("request_duration_seconds", help, None, MetricType::Histogram)?;
        for model in &self.models {
            let labels = [("model", model.label.as_str())];
            let reading = model.duration.read();
            let mut member = family.encode_family(&labels)?;
            member.encode_histogram::<[(&str, &str); 0]>(reading.sum, reading.count, &reading.buckets, None)?;
        }
        Ok(())
    }

    fn inside(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let inside = &self.inside;
        gauges(encoder, "queue_depth", "Requests that wait for a worker, by worker group", grouped(&inside.queued))?;
        gauges(
            encoder,
            "worker_requests",
            "Requests that are with a worker, by worker group",
            grouped(&inside.in_flight),
        )?;
        let workers = inside.workers.iter();
        let workers = workers.map(|row| (vec![("group", row.group.as_str()), ("state", row.state)], row.count));
        gauges(encoder, "workers", "Workers by group and state", workers)?;
        counters(encoder, "worker_restarts", "Workers that were started again, by group", grouped(&inside.restarts))
    }

    fn capabilities(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let loads = by_model(&self.inside.capabilities);
        let labels = |model| vec![("model", model)];
        let help = "Requests that wait for a capability of this model";
        let rows = loads.iter().map(|(model, load)| (labels(*model), load.queued));
        gauges(encoder, "capability_queue_depth", help, rows)?;
        let help = "1 if a queue of this model is full";
        let rows = loads.iter().map(|(model, load)| (labels(*model), u64::from(load.saturated)));
        gauges(encoder, "capability_saturated", help, rows)
    }

    fn dispatch(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let inside = &self.inside;
        counter(encoder, "retries", "Requests that were sent to a worker again", inside.retries)?;
        let help = "Requests that were not sent again because the retry budget was used up";
        counter(encoder, "retries_refused", help, inside.retries_refused)?;
        let help = "Fingerprints that are refused because their requests killed workers";
        gauge(encoder, "quarantined", help, inside.quarantined)?;
        gauge(encoder, "draining", "1 once the replica has begun to leave", u64::from(self.draining))
    }
}

fn objects(store: &StoreLoad, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    gauge(encoder, "object_store_capacity_bytes", "Bytes of the object store", store.capacity)?;
    gauge(encoder, "object_store_used_bytes", "Bytes of the object store that are taken", store.used)?;
    let help = "Bytes of the longest free piece of the object store";
    gauge(encoder, "object_store_longest_free_bytes", help, store.longest_free)?;
    gauge(encoder, "object_store_objects", "Objects in the object store", store.objects)?;
    let help = "Tensors of requests and responses under way in the object store";
    gauge(encoder, "object_store_tensors", help, store.tensors)?;
    counter(encoder, "object_store_evictions", "Objects that were evicted to make room", store.evicted)?;
    let help = "Tensors and objects that are over and that a worker still reads";
    let rows = store.kept.iter().map(|(worker, count)| (vec![("worker", worker.as_str())], *count));
    gauges(encoder, "object_store_kept", help, rows)
}

/// The load of all capabilities of one model.
#[derive(Debug, Default)]
struct ModelLoad {
    queued: u64,
    saturated: bool,
}

/// Several capabilities may go by one name, and a label may stand there once only.
fn by_model(capabilities: &[CapabilityLoad]) -> BTreeMap<&str, ModelLoad> {
    let mut all = BTreeMap::<&str, ModelLoad>::new();
    for load in capabilities {
        let model = all.entry(&load.model).or_default();
        model.queued += u64::try_from(load.queued).unwrap_or(u64::MAX);
        model.saturated |= load.saturated;
    }
    all
}

fn grouped(counts: &[(String, u64)]) -> impl Iterator<Item = Row<'_>> {
    counts.iter().map(|(group, count)| (vec![("group", group.as_str())], *count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Code, WorkerCount};
    use std::time::Instant;

    fn load(model: &str, queued: usize, saturated: bool) -> CapabilityLoad {
        CapabilityLoad { model: model.into(), queued, max_queue: 8, saturated, ..CapabilityLoad::default() }
    }

    #[test]
    fn a_scrape_shows_requests_durations_queues_and_workers() {
        let metrics = Metrics::new();
        metrics.begin("nobody", Instant::now(), Default::default).finish(Some(Code::NoCapability));
        let inside = Snapshot {
            queued: vec![("main".into(), 3)],
            in_flight: vec![("main".into(), 2)],
            workers: vec![WorkerCount { group: "main".into(), state: "ready", count: 1 }],
            restarts: vec![("main".into(), 4)],
            capabilities: vec![load("a", 1, false), load("b", 5, false), load("a", 2, true)],
            retries: 6,
            retries_refused: 7,
            quarantined: 8,
            objects: Some(StoreLoad {
                capacity: 10,
                used: 11,
                longest_free: 12,
                objects: 13,
                tensors: 14,
                evicted: 15,
                kept: vec![("worker-0".into(), 16)],
            }),
        };
        let certificates = CertificateDates::default();
        certificates.put("/a/b.pem".as_ref(), Some(17));
        certificates.put("/a/b.key".as_ref(), None);
        let text = text(&metrics, inside, certificates, true);
        for line in [
            r#"anyserve_requests_total{model="unknown",code="NO_CAPABILITY"} 1"#,
            r#"anyserve_requests_in_flight{model="unknown"} 0"#,
            r#"anyserve_request_duration_seconds_count{model="unknown"} 1"#,
            r#"anyserve_request_duration_seconds_bucket{le="+Inf",model="unknown"} 1"#,
            r#"anyserve_queue_depth{group="main"} 3"#,
            r#"anyserve_worker_requests{group="main"} 2"#,
            r#"anyserve_workers{group="main",state="ready"} 1"#,
            r#"anyserve_worker_restarts_total{group="main"} 4"#,
            r#"anyserve_capability_queue_depth{model="a"} 3"#,
            r#"anyserve_capability_queue_depth{model="b"} 5"#,
            r#"anyserve_capability_saturated{model="a"} 1"#,
            r#"anyserve_capability_saturated{model="b"} 0"#,
            "anyserve_retries_total 6",
            "anyserve_retries_refused_total 7",
            "anyserve_quarantined 8",
            "anyserve_draining 1",
            "anyserve_object_store_capacity_bytes 10",
            "anyserve_object_store_used_bytes 11",
            "anyserve_object_store_longest_free_bytes 12",
            "anyserve_object_store_objects 13",
            "anyserve_object_store_tensors 14",
            "anyserve_object_store_evictions_total 15",
            r#"anyserve_object_store_kept{worker="worker-0"} 16"#,
            r#"anyserve_tls_certificate_expiry_timestamp_seconds{file="/a/b.pem"} 17"#,
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
