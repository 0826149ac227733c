//! One metric of an autoscaler: measured, and turned into a number of replicas.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, CrossVersionObjectReference, ExternalMetricStatus,
    MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kontiki_api::quantity;
use kontiki_api::registry::strategy::Kind;

use super::measure::{self, MetricsApi};
use super::replicas::{self, Basis, Proposal};
use crate::controllers::owners;

/// What a metric is evaluated for.
pub struct Target<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The selector of the pods, as a text.
    pub selector: &'a str,
    /// The pods, and how many there shall be now.
    pub basis: Basis<'a>,
    /// How many there are.
    pub observed: i32,
    /// All kinds, to find that of an object.
    pub kinds: &'a [&'static Kind],
}

/// What a metric asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// So many replicas.
    pub replicas: i32,
    /// What it is called in events.
    pub name: String,
    /// What the status says of it.
    pub status: MetricStatus,
}

/// Why a metric asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// As one word.
    pub reason: &'static str,
    /// What went wrong.
    pub message: String,
    /// What the event over all metrics says before it.
    pub prefix: String,
}

/// Measures and reckons.
pub async fn evaluate(
    api: &dyn MetricsApi,
    target: &Target<'_>,
    metric: &MetricSpec,
) -> Result<Evaluated, Failed> {
    match metric.type_.as_str() {
        "Resource" => {
            let source = metric.resource.as_ref().ok_or_else(|| unknown(metric))?;
            let found = of_resource(api, target, &source.name, None, &source.target).await;
            let (replicas, current, name) = found.map_err(|message| Failed {
                reason: "FailedGetResourceMetric",
                message,
                prefix: format!("failed to get {} resource metric value", source.name),
            })?;
            let shown = ResourceMetricStatus { current, name: source.name.clone() };
            let status = MetricStatus { resource: Some(shown), ..of_type(metric) };
            Ok(Evaluated { replicas, name, status })
        }
        "ContainerResource" => {
            let source = metric.container_resource.as_ref().ok_or_else(|| unknown(metric))?;
            let container = Some(source.container.as_str());
            let found = of_resource(api, target, &source.name, container, &source.target).await;
            let (replicas, current, name) = found.map_err(|message| Failed {
                reason: "FailedGetContainerResourceMetric",
                message,
                prefix: format!("failed to get {} container metric value", source.name),
            })?;
            let shown = ContainerResourceMetricStatus {
                container: source.container.clone(),
                current,
                name: source.name.clone(),
            };
            let status = MetricStatus { container_resource: Some(shown), ..of_type(metric) };
            Ok(Evaluated { replicas, name, status })
        }
        "Pods" => of_pods(api, target, metric).await,
        "Object" => of_object(api, target, metric).await,
        "External" => of_external(api, target, metric).await,
        _ => Err(unknown(metric)),
    }
}

fn unknown(metric: &MetricSpec) -> Failed {
    Failed {
        reason: "InvalidMetricSourceType",
        message: format!("unknown metric source type {:?}", metric.type_),
        prefix: String::new(),
    }
}

fn of_type(metric: &MetricSpec) -> MetricStatus {
    MetricStatus { type_: metric.type_.clone(), ..MetricStatus::default() }
}

async fn of_resource(
    api: &dyn MetricsApi,
    target: &Target<'_>,
    resource: &str,
    container: Option<&str>,
    wanted: &MetricTarget,
) -> Result<(i32, MetricValueStatus, String), String> {
    let samples =
        measure::resource(api, target.namespace, target.selector, resource, container).await;
    let samples =
        samples.map_err(|why| format!("unable to get metrics for resource {resource}: {why}"));
    if let Some(average) = wanted.average_value.as_ref().and_then(milli) {
        let found = samples
            .and_then(|samples| replicas::for_average(&target.basis, samples, average, resource));
        let found = found.map_err(|why| format!("failed to get {resource} usage: {why}"))?;
        let current = averaged(&found);
        return Ok((found.replicas, current, format!("{resource} resource")));
    }
    let Some(percent) = wanted.average_utilization else {
        return Err(
            "invalid resource metric source: neither an average utilization target nor an \
                    average value (usage) target was set"
                .to_owned(),
        );
    };
    let found = samples.and_then(|samples| {
        replicas::for_utilization(&target.basis, samples, percent, resource, container)
    });
    let found = found.map_err(|why| format!("failed to get {resource} utilization: {why}"))?;
    let current = MetricValueStatus { average_utilization: found.utilization, ..averaged(&found) };
    let name = format!("{resource} resource utilization (percentage of request)");
    Ok((found.replicas, current, name))
}

async fn of_pods(
    api: &dyn MetricsApi,
    target: &Target<'_>,
    metric: &MetricSpec,
) -> Result<Evaluated, Failed> {
    let source = metric.pods.as_ref().ok_or_else(|| unknown(metric))?;
    let name = &source.metric.name;
    let failed = |why: String| Failed {
        reason: "FailedGetPodsMetric",
        message: why,
        prefix: "failed to get pods metric value".to_owned(),
    };
    let average = source.target.average_value.as_ref().and_then(milli);
    let average = average.ok_or_else(|| failed("no average value target was set".into()))?;
    let selector = selector_text(source.metric.selector.as_ref());
    let samples = measure::pods(api, target.namespace, target.selector, name, &selector).await;
    let samples = samples.map_err(|why| failed(format!("unable to get metric {name}: {why}")))?;
    let found = replicas::for_average(&target.basis, samples, average, "").map_err(failed)?;
    let shown = PodsMetricStatus { current: averaged(&found), metric: source.metric.clone() };
    Ok(Evaluated {
        replicas: found.replicas,
        name: format!("pods metric {name}"),
        status: MetricStatus { pods: Some(shown), ..of_type(metric) },
    })
}

async fn of_object(
    api: &dyn MetricsApi,
    target: &Target<'_>,
    metric: &MetricSpec,
) -> Result<Evaluated, Failed> {
    let source = metric.object.as_ref().ok_or_else(|| unknown(metric))?;
    let (name, described) = (&source.metric.name, &source.described_object);
    let failed = |why: String| Failed {
        reason: "FailedGetObjectMetric",
        message: why,
        prefix: "failed to get object metric value".to_owned(),
    };
    let value = object_value(api, target, described, &source.metric).await.map_err(|why| {
        let (kind, namespace, object) = (&described.kind, target.namespace, &described.name);
        failed(format!("unable to get metric {name}: {kind} on {namespace} {object}/{why}"))
    })?;
    let (replicas, current) = of_value(target, value, &source.target).map_err(failed)?;
    let shown = ObjectMetricStatus {
        current,
        described_object: described.clone(),
        metric: source.metric.clone(),
    };
    Ok(Evaluated {
        replicas,
        name: format!("{} metric {name}", described.kind),
        status: MetricStatus { object: Some(shown), ..of_type(metric) },
    })
}

async fn object_value(
    api: &dyn MetricsApi,
    target: &Target<'_>,
    described: &CrossVersionObjectReference,
    metric: &MetricIdentifier,
) -> Result<i64, String> {
    let kind = find_kind(target.kinds, described);
    let kind = kind.ok_or_else(|| format!("no matches for kind {:?}", described.kind))?;
    let selector = selector_text(metric.selector.as_ref());
    let object = (kind, described.name.as_str());
    measure::object(api, target.namespace, object, &metric.name, &selector).await
}

async fn of_external(
    api: &dyn MetricsApi,
    target: &Target<'_>,
    metric: &MetricSpec,
) -> Result<Evaluated, Failed> {
    let source = metric.external.as_ref().ok_or_else(|| unknown(metric))?;
    let name = &source.metric.name;
    let failed = |why: String| Failed {
        reason: "FailedGetExternalMetric",
        message: why,
        prefix: format!("failed to get {name} external metric value"),
    };
    let selector = selector_text(source.metric.selector.as_ref());
    let shown = if selector.is_empty() { "nil" } else { &selector };
    let value = measure::external(api, target.namespace, name, &selector).await.map_err(|why| {
        failed(format!("unable to get external metric {}/{name}/{shown}: {why}", target.namespace))
    })?;
    let (replicas, current) = of_value(target, value, &source.target).map_err(failed)?;
    let status = ExternalMetricStatus { current, metric: source.metric.clone() };
    Ok(Evaluated {
        replicas,
        name: format!("external metric {name}({shown})"),
        status: MetricStatus { external: Some(status), ..of_type(metric) },
    })
}

/// One value for all pods, against a value or a share for each.
fn of_value(
    target: &Target<'_>,
    value: i64,
    wanted: &MetricTarget,
) -> Result<(i32, MetricValueStatus), String> {
    if let Some(average) = wanted.average_value.as_ref().and_then(milli) {
        let found = replicas::for_share(&target.basis, target.observed, value, average);
        return Ok((found.replicas, averaged(&found)));
    }
    let whole = wanted.value.as_ref().and_then(milli);
    let whole = whole.ok_or("neither a value target nor an average value target was set")?;
    let found = replicas::for_value(&target.basis, value, whole)?;
    let value = Some(quantity_of(found.value));
    Ok((found.replicas, MetricValueStatus { value, ..MetricValueStatus::default() }))
}

fn averaged(found: &Proposal) -> MetricValueStatus {
    let average_value = Some(quantity_of(found.value));
    MetricValueStatus { average_value, ..MetricValueStatus::default() }
}

fn quantity_of(milli: i64) -> Quantity {
    Quantity(quantity::Quantity::milli(milli).to_string())
}

fn milli(quantity: &Quantity) -> Option<i64> {
    quantity.0.parse::<quantity::Quantity>().ok().map(quantity::Quantity::milli_value)
}

/// The kind that a reference names: in its version, or another of its group.
pub fn find_kind(
    kinds: &[&'static Kind],
    reference: &CrossVersionObjectReference,
) -> Option<&'static Kind> {
    let api_version = reference.api_version.as_deref().unwrap_or_default();
    let named = |kind: &&&'static Kind| {
        kind.kind == reference.kind && kind.group == owners::group(api_version)
    };
    let exact = kinds.iter().filter(named).find(|kind| kind.api_version() == api_version);
    exact.or_else(|| kinds.iter().find(named)).copied()
}

/// A selector as a text.
fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        parts.push(format!("{key}={value}"));
    }
    for one in selector.match_expressions.iter().flatten() {
        let values = one.values.as_deref().unwrap_or_default().join(",");
        parts.push(match one.operator.as_str() {
            "In" => format!("{} in ({values})", one.key),
            "NotIn" => format!("{} notin ({values})", one.key),
            "DoesNotExist" => format!("!{}", one.key),
            _ => one.key.clone(),
        });
    }
    parts.join(",")
}
