//! `/metrics`: what the server counts of itself, under Kubernetes' names.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::answer;
use crate::fairness::Figures;
use crate::request_info::{RequestInfo, ResourcePath};
use crate::status::Status;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    verb: String,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnderWay {
    request_kind: String,
}

/// The bounds of the buckets for durations, in seconds.
const DURATION_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// What the server counts.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    durations: Family<Timed, Histogram>,
    under_way: Family<UnderWay, Gauge>,
}

/// Counts down when the request is over, however it ends.
pub(crate) struct Begun(Gauge);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new(flow: &Figures) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations =
            Family::new_with_constructor((|| Histogram::new(DURATION_SECONDS)) as fn() -> _);
        let under_way = Family::default();
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and code",
            Family::clone(&requests),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "How long requests took that are not long-running",
            Family::clone(&durations),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests under way",
            Family::clone(&under_way),
        );
        flow.register(&mut registry);
        Self { registry, requests, durations, under_way }
    }

    /// Counts a request as under way until what it gives is dropped.
    pub(crate) fn begin(&self, info: &RequestInfo) -> Begun {
        let request_kind = if info.is_long_running() {
            "longRunning"
        } else if info.is_read_only() {
            "readOnly"
        } else {
            "mutating"
        };
        let labels = UnderWay { request_kind: request_kind.into() };
        let gauge = self.under_way.get_or_create_owned(&labels);
        gauge.inc();
        Begun(gauge)
    }

    /// Counts an answer.
    pub(crate) fn end(&self, info: &RequestInfo, code: u16, took: Duration) {
        let answered = answered(info, code);
        if !info.is_long_running() {
            let timed = Timed { verb: answered.verb.clone(), resource: answered.resource.clone() };
            self.durations.get_or_create(&timed).observe(took.as_secs_f64());
        }
        self.requests.get_or_create(&answered).inc();
    }

    /// The text of `/metrics`.
    pub(crate) fn answer(&self) -> Result<Response, Status> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .map_err(Status::internal)?;
        let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(answer::bytes(StatusCode::OK, media_type, text.into_bytes()))
    }
}

/// The labels of an answer. What was not found is counted under no resource, so that clients
/// cannot make up labels without end.
fn answered(info: &RequestInfo, code: u16) -> Answered {
    match info {
        RequestInfo::Resource(path) if code != 404 && code != 403 => {
            let ResourcePath { verb, group, version, resource, subresource, .. } = path.clone();
            let verb = verb.as_str().to_ascii_uppercase();
            Answered { verb, group, version, resource, subresource, code }
        }
        RequestInfo::Resource(path) => Answered {
            verb: path.verb.as_str().to_ascii_uppercase(),
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            code,
        },
        RequestInfo::Path { method, .. } => Answered {
            verb: if method.is_safe() { "GET".into() } else { "OTHER".into() },
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            code,
        },
    }
}
