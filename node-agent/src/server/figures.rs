//! `/stats/summary`, `/metrics`, `/metrics/resource`, `/metrics/cadvisor`, `/pods`, `/configz`.
//! Some is read from the kernel's files while it is asked for, so all is made off the runtime.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{Body, Sources, text};
use crate::config::AgentConfig;
use crate::evict::threshold::Threshold;
use crate::stats::{Sample, exposition, summary};
use crate::system;

/// The answer to a path of figures; none where it is none.
pub(super) async fn answer(
    sources: &Arc<Sources>,
    parts: &[&str],
    query: &str,
) -> Option<Response<Body>> {
    let (sources, path, query) = (Arc::clone(sources), parts.join("/"), query.to_owned());
    let made = tokio::task::spawn_blocking(move || {
        let parts: Vec<&str> = path.split('/').collect();
        make(&sources, &parts, &query)
    });
    made.await
        .unwrap_or_else(|error| Some(text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())))
}

fn make(sources: &Sources, parts: &[&str], query: &str) -> Option<Response<Body>> {
    let (config, paths) = (&sources.config, &sources.paths);
    let node = &config.node_name;
    let answer = match parts {
        ["pods"] => json_text(&pods(sources)),
        ["configz"] => json_text(&json!({ "kubeletconfig": configuration(config) })),
        ["stats", "summary"] => with_sample(sources, |sample| {
            let extent = summary::Extent::of_query(query);
            json_text(&summary::document(node, sample, paths, extent))
        }),
        ["metrics", "resource"] => {
            with_sample(sources, |sample| metrics(&exposition::resource(sample)))
        }
        ["metrics", "cadvisor"] => with_sample(sources, |sample| {
            let capacity = system::capacity(paths.data());
            let memory = u64::try_from(capacity.memory_bytes).unwrap_or(0);
            metrics(&exposition::cadvisor(sample, capacity.cpus, memory))
        }),
        ["metrics"] => {
            let sample = sources.stats.last();
            let pods = sample.iter().flat_map(|sample| &sample.pods);
            let containers = pods.clone().map(|pod| pod.containers.len()).sum();
            metrics(&exposition::own(node, pods.count(), containers))
        }
        _ => return None,
    };
    Some(answer)
}

fn with_sample(sources: &Sources, show: impl FnOnce(&Sample) -> Response<Body>) -> Response<Body> {
    match sources.stats.last() {
        Some(sample) => show(&sample),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "no figures yet: the agent has just started"),
    }
}

fn pods(sources: &Sources) -> Value {
    let pods: Vec<_> = sources.index.all();
    let pods: Vec<_> = pods.iter().map(AsRef::as_ref).collect();
    json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods })
}

/// What of a kubelet's configuration the agent has.
fn configuration(config: &AgentConfig) -> Value {
    let seconds = |duration: std::time::Duration| format!("{}s", duration.as_secs());
    let dns = config.cluster_dns.as_ref();
    json!({
        "address": config.listen.ip(),
        "port": config.listen.port(),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true, "cacheTTL": "2m0s" },
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": { "cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s" },
        },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": config.cgroup_root,
        "clusterDNS": dns.map(|dns| vec![dns.address.to_string()]).unwrap_or_default(),
        "clusterDomain": dns.map(|dns| dns.domain.clone()).unwrap_or_default(),
        "evictionHard": thresholds(config, |one| one.grace.is_none()),
        "evictionSoft": thresholds(config, |one| one.grace.is_some()),
        "evictionPressureTransitionPeriod": seconds(config.eviction.transition),
        "evictionMaxPodGracePeriod": config.eviction.grace_max.as_secs(),
        "imageGCHighThresholdPercent": config.image_gc.high_percent,
        "imageGCLowThresholdPercent": config.image_gc.low_percent,
        "imageMinimumGCAge": seconds(config.image_gc.min_age),
        "maxPods": config.max_pods,
        "staticPodPath": config.static_pods_dir,
        "nodeLeaseDurationSeconds": config.timers.lease_duration.as_secs(),
        "nodeStatusReportFrequency": seconds(config.timers.node_status),
        "nodeStatusUpdateFrequency": seconds(config.timers.node_status),
    })
}

fn thresholds(config: &AgentConfig, is_shown: fn(&Threshold) -> bool) -> Value {
    let shown = config.eviction.thresholds.iter().filter(|one| is_shown(one));
    shown.map(|one| (one.signal.name().to_owned(), one.value.written())).collect()
}

fn json_text(value: &Value) -> Response<Body> {
    typed("application/json", &value.to_string())
}

fn metrics(content: &str) -> Response<Body> {
    typed(exposition::CONTENT_TYPE, content)
}

fn typed(content_type: &'static str, content: &str) -> Response<Body> {
    let mut response = text(StatusCode::OK, content);
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
