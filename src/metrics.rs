//! Figures for whoever watches the registry, as OpenMetrics text. What another room can tell is one line in `app`:
//! [`Metrics::gauge`] and [`Metrics::counter`] ask it when somebody looks.
//!
//! No label holds anything that a client can choose: no names of repositories, no digests, no addresses.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Of what [`Metrics::text`] gives.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the histogram of durations, in seconds: from a manifest in memory to a layer over a slow line.
const DURATIONS: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<Answered, Counter>,
    pub(crate) durations: Family<OfKind, Histogram>,
    pub(crate) received: Family<OfKind, Counter>,
    pub(crate) sent: Family<OfKind, Counter>,
    pub(crate) in_flight: Gauge,
    pub(crate) blobs_pushed: Counter,
    pub(crate) manifests_pushed: Counter,
    /// For whoever checks passwords and tokens.
    pub(crate) auth_failures: Counter,
}

/// A request that has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Answered {
    pub(crate) method: Method,
    pub(crate) kind: Kind,
    pub(crate) status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfKind {
    pub(crate) kind: Kind,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Base,
    Catalog,
    Tags,
    Manifest,
    Blob,
    Upload,
    Referrers,
    Health,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    /// The client was gone before there was an answer.
    None,
    Success,
    Redirection,
    ClientError,
    ServerError,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("sampan"),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            received: Family::default(),
            sent: Family::default(),
            in_flight: Gauge::default(),
            blobs_pushed: Counter::default(),
            manifests_pushed: Counter::default(),
            auth_failures: Counter::default(),
        };
        metrics.add("http_requests", "Requests that were answered", metrics.requests.clone());
        metrics.add(
            "http_request_duration_seconds",
            "From the head to the answer's last byte",
            metrics.durations.clone(),
        );
        metrics.add(
            "http_received_bytes",
            "Bytes of blobs and manifests that clients sent",
            metrics.received.clone(),
        );
        metrics.add("http_sent_bytes", "Bytes of answers that clients were sent", metrics.sent.clone());
        metrics.add("http_requests_in_flight", "Requests that are being answered", metrics.in_flight.clone());
        metrics.add("blobs_pushed", "Blobs that clients pushed or mounted", metrics.blobs_pushed.clone());
        metrics.add("manifests_pushed", "Manifests that clients pushed", metrics.manifests_pushed.clone());
        metrics.add(
            "auth_failures",
            "Requests with a wrong password or token",
            metrics.auth_failures.clone(),
        );
        metrics
    }

    /// A number that goes up and down, asked when somebody looks. `read` must be quick.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.add(name, help, Read { kind: MetricType::Gauge, read });
    }

    /// A number that only grows, asked when somebody looks. Its name is shown with `_total` behind it.
    pub(crate) fn counter(&mut self, name: &str, help: &str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.add(name, help, Read { kind: MetricType::Counter, read });
    }

    /// All figures. May block for a moment, for those that ask the disk.
    pub(crate) fn text(&self) -> String {
        let mut all = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut all, &self.registry);
        all
    }

    fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }
}

impl Method {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

impl Status {
    pub(crate) fn of(status: Option<u16>) -> Self {
        match status {
            None => Self::None,
            Some(..300) => Self::Success,
            Some(300..400) => Self::Redirection,
            Some(400..500) => Self::ClientError,
            Some(500..) => Self::ServerError,
        }
    }
}

/// A figure that is asked for.
struct Read<F> {
    kind: MetricType,
    read: F,
}

impl<F> fmt::Debug for Read<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").finish_non_exhaustive()
    }
}

impl<F: Fn() -> u64 + Send + Sync + 'static> EncodeMetric for Read<F> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let value = (self.read)();
        match self.kind {
            MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
            _ => encoder.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
        }
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Referrers => "referrers",
            Self::Health => "health",
            Self::Other => "other",
        })
    }
}

impl EncodeLabelValue for Method {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other => "other",
        })
    }
}

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::None => "none",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_openmetrics() {
        let mut metrics = Metrics::new();
        metrics.gauge("store_free_bytes", "Free", || 7);
        metrics.counter("bitswap_sent_blocks", "Sent", || 8);
        let answered =
            Answered { method: Method::of("GET"), kind: Kind::Blob, status: Status::of(Some(206)) };
        metrics.requests.get_or_create(&answered).inc();
        metrics.durations.get_or_create(&OfKind { kind: Kind::Blob }).observe(0.002);
        let text = metrics.text();
        for line in [
            "sampan_http_requests_total{method=\"GET\",kind=\"blob\",status=\"2xx\"} 1",
            "sampan_http_request_duration_seconds_bucket{le=\"0.005\",kind=\"blob\"} 1",
            "# TYPE sampan_store_free_bytes gauge",
            "sampan_store_free_bytes 7",
            "sampan_bitswap_sent_blocks_total 8",
            "sampan_auth_failures_total 0",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
