//! What is measured, asked of the APIs for it: `metrics.k8s.io` for resources, `custom.metrics.k8s.io`
//! for pods and objects, `external.metrics.k8s.io` for what lies outside, whoever serves them.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kontiki_api::quantity::Quantity;
use kontiki_api::registry::strategy::Kind;
use kontiki_api::status::Status;
use serde_json::Value;

use super::replicas::{Sample, Samples};

/// Over which time a figure was measured, where it does not say.
const USUAL_WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// The versions of custom metrics, the newer first.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];

/// Asks the API as the autoscaler.
#[async_trait]
pub trait MetricsApi: Send + Sync {
    /// GET of the path of these segments with that query.
    async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Status>;
}

/// What pods use of a resource, or one container of each.
pub async fn resource(
    api: &dyn MetricsApi,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Samples, String> {
    let path = ["apis", "metrics.k8s.io", "v1beta1", "namespaces", namespace, "pods"];
    let answer = api.get(&path, &[("labelSelector", selector)]).await;
    let answer = answer.map_err(|status| {
        format!("unable to fetch metrics from resource metrics API: {}", status.message())
    })?;
    let items = items(&answer);
    if items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let mut samples = Samples::new();
    for item in items {
        let containers = item["containers"].as_array().map_or(&[][..], Vec::as_slice);
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        let wanted = |one: &&Value| container.is_none_or(|name| one["name"] == name);
        let parts: Vec<&Value> = containers.iter().filter(wanted).collect();
        if let (Some(container), true) = (container, parts.is_empty()) {
            let pod = format!("{namespace}/{name}");
            return Err(format!("container {container} not present in metrics for pod {pod}"));
        }
        // A pod of which a part is missing says nothing.
        let values = parts.iter().map(|one| milli(&one["usage"][resource]));
        let Some(value) = values.sum::<Option<i64>>().filter(|_| !parts.is_empty()) else {
            continue;
        };
        let window = item["window"].as_str().and_then(|text| text.parse().ok());
        let sample = Sample { value, at: time(item), window: window.unwrap_or(USUAL_WINDOW) };
        samples.insert(name.to_owned(), sample);
    }
    Ok(samples)
}

/// What a metric says of each of the pods.
pub async fn pods(
    api: &dyn MetricsApi,
    namespace: &str,
    selector: &str,
    metric: &str,
    metric_selector: &str,
) -> Result<Samples, String> {
    let path = ["namespaces", namespace, "pods", "*", metric];
    let mut query = vec![("labelSelector", selector)];
    if !metric_selector.is_empty() {
        query.push(("metricLabelSelector", metric_selector));
    }
    let answer = custom(api, &path, &query).await?;
    let samples: Samples = items(&answer)
        .iter()
        .filter_map(|item| {
            let name = item["describedObject"]["name"].as_str()?.to_owned();
            let seconds = item["windowSeconds"].as_i64().or_else(|| item["window"].as_i64());
            let window = seconds.map_or(USUAL_WINDOW, SignedDuration::from_secs);
            Some((name, Sample { value: milli(&item["value"])?, at: time(item), window }))
        })
        .collect();
    if samples.is_empty() {
        return Err("no metrics returned from custom metrics API".to_owned());
    }
    Ok(samples)
}

/// What a metric says of an object.
pub async fn object(
    api: &dyn MetricsApi,
    namespace: &str,
    (kind, name): (&Kind, &str),
    metric: &str,
    metric_selector: &str,
) -> Result<i64, String> {
    let resource = match kind.group {
        "" => kind.plural.to_owned(),
        group => format!("{}.{group}", kind.plural),
    };
    let path = match kind.kind {
        "Namespace" if kind.group.is_empty() => vec!["namespaces", name, "metrics", metric],
        _ if kind.is_namespaced() => vec!["namespaces", namespace, &resource, name, metric],
        _ => vec![resource.as_str(), name, metric],
    };
    let mut query = Vec::new();
    if !metric_selector.is_empty() {
        query.push(("metricLabelSelector", metric_selector));
    }
    let answer = custom(api, &path, &query).await?;
    let first = items(&answer).first().and_then(|item| milli(&item["value"]));
    first.ok_or_else(|| "no metrics returned from custom metrics API".to_owned())
}

/// The sum of what an external metric says.
pub async fn external(
    api: &dyn MetricsApi,
    namespace: &str,
    metric: &str,
    selector: &str,
) -> Result<i64, String> {
    let path = ["apis", "external.metrics.k8s.io", "v1beta1", "namespaces", namespace, metric];
    let query = [("labelSelector", selector)];
    let query = if selector.is_empty() { &[][..] } else { &query[..] };
    let answer = api.get(&path, query).await.map_err(|status| {
        format!("unable to fetch metrics from external metrics API: {}", status.message())
    })?;
    let values: Vec<i64> = items(&answer).iter().filter_map(|one| milli(&one["value"])).collect();
    if values.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    Ok(values.into_iter().fold(0, i64::saturating_add))
}

/// The newer version of the API, or the older where that is all there is.
async fn custom(
    api: &dyn MetricsApi,
    path: &[&str],
    query: &[(&str, &str)],
) -> Result<Value, String> {
    let mut refused = String::new();
    for version in CUSTOM_VERSIONS {
        let mut whole = vec!["apis", "custom.metrics.k8s.io", version];
        whole.extend(path);
        match api.get(&whole, query).await {
            Ok(answer) => return Ok(answer),
            Err(status) => {
                let is_missing = status.is_not_found();
                status.message().clone_into(&mut refused);
                if !is_missing {
                    break;
                }
            }
        }
    }
    Err(format!("unable to fetch metrics from custom metrics API: {refused}"))
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

fn milli(quantity: &Value) -> Option<i64> {
    quantity.as_str()?.parse::<Quantity>().ok().map(Quantity::milli_value)
}

fn time(item: &Value) -> Timestamp {
    let text = item["timestamp"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}
