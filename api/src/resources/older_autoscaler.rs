//! HorizontalPodAutoscaler of autoscaling/v1: the same objects as those of v2, with one number for
//! the processors' load. What that version has no field for stands in annotations.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::defaults::{child, clear, fill, put, str_of};
use super::horizontal_pod_autoscaler::{self as newer, CPU_PERCENT};
use crate::object::Object;
use crate::registry::strategy::{Column, Kind, Strategy};
use crate::status::FieldError;

/// The kind.
pub static KIND: Kind = Kind {
    group: "autoscaling",
    version: "v1",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: newer::KIND.short_names,
    categories: newer::KIND.categories,
    scope: newer::KIND.scope,
    storage: newer::KIND.storage,
    subresources: newer::KIND.subresources,
    verbs: newer::KIND.verbs,
    strategy: &OlderAutoscaler,
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
/// Each annotation with the field of v2 that it stands for.
const ANNOTATIONS: [(&str, [&str; 2]); 4] = [
    (METRICS, ["spec", "metrics"]),
    ("autoscaling.alpha.kubernetes.io/behavior", ["spec", "behavior"]),
    ("autoscaling.alpha.kubernetes.io/current-metrics", ["status", "currentMetrics"]),
    ("autoscaling.alpha.kubernetes.io/conditions", ["status", "conditions"]),
];
/// What is wanted and what is seen of the processors' load: where each version says it, and what v2
/// calls the amount.
const LOADS: [(&str, &str, &str, &str); 2] = [
    ("spec", "targetCPUUtilizationPercentage", "metrics", "target"),
    ("status", "currentCPUUtilizationPercentage", "currentMetrics", "current"),
];

#[derive(Debug)]
struct OlderAutoscaler;

impl Strategy for OlderAutoscaler {
    fn shows_as_stored(&self) -> bool {
        false
    }

    fn present(&self, object: &mut Object) {
        to_older(object);
    }

    fn store(&self, object: &mut Object) {
        to_newer(object);
    }

    fn initial_status(&self) -> Value {
        json!({"currentReplicas": 0, "desiredReplicas": 0})
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let has_metrics = object.annotation(METRICS).is_some();
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        fill(spec, "minReplicas", 1);
        if !has_metrics {
            fill(spec, "targetCPUUtilizationPercentage", CPU_PERCENT);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        newer::KIND.strategy.validate(&as_newer(object))
    }

    fn columns(&self) -> &'static [Column] {
        newer::KIND.strategy.columns()
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        newer::KIND.strategy.row(&as_newer(object), now)
    }
}

fn as_newer(object: &Object) -> Object {
    let mut newer = object.clone();
    to_newer(&mut newer);
    newer
}

fn to_older(object: &mut Object) {
    for (part, number, metrics, side) in LOADS {
        let Some(part) = child(object.value_mut(), part) else { continue };
        let Some(Value::Array(list)) = part.get_mut(metrics).map(Value::take) else { continue };
        let (loads, others): (Vec<_>, Vec<_>) =
            list.into_iter().partition(|metric| load(metric, side).is_some());
        if let Some(load) = loads.first().and_then(|metric| load(metric, side)).cloned() {
            put(part, number, load);
        }
        let others: Vec<Value> = others.iter().map(|metric| older_metric(metric, side)).collect();
        put(part, metrics, others);
    }
    for (annotation, path) in ANNOTATIONS {
        let Some(value) = object.remove(&path) else { continue };
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            object.set(&["metadata", "annotations", annotation], value.to_string());
        }
    }
    if let Some(status) = child(object.value_mut(), "status") {
        fill(status, "currentReplicas", 0);
        fill(status, "desiredReplicas", 0);
    }
    object.set_type("autoscaling/v1", KIND.kind);
}

fn to_newer(object: &mut Object) {
    for (annotation, path) in ANNOTATIONS {
        let Some(text) = object.remove(&["metadata", "annotations", annotation]) else { continue };
        // What cannot be read says nothing, as upstream has it.
        let value = text.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(value) = value {
            object.set(&path, value);
        }
    }
    if object.at("/metadata/annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove(&["metadata", "annotations"]);
    }
    for (part, number, metrics, side) in LOADS {
        let Some(part) = child(object.value_mut(), part) else { continue };
        let others = part.get(metrics).and_then(Value::as_array).cloned().unwrap_or_default();
        let mut list: Vec<Value> = others.iter().map(|metric| newer_metric(metric, side)).collect();
        if let Some(percent) = part.get(number).filter(|percent| !percent.is_null()).cloned() {
            let mut amount = json!({"averageUtilization": percent});
            if side == "target" {
                put(&mut amount, "type", "Utilization");
            }
            list.push(json!({"type": "Resource", "resource": {"name": "cpu", side: amount}}));
        }
        clear(part, number);
        if list.is_empty() { clear(part, metrics) } else { put(part, metrics, list) }
    }
    object.set_type("autoscaling/v2", KIND.kind);
    newer::KIND.strategy.default(object);
}

/// The share of the processors that a metric is about, where that is all it is about.
fn load<'m>(metric: &'m Value, side: &str) -> Option<&'m Value> {
    let is_cpu = str_of(metric, "type") == "Resource" && metric["resource"]["name"] == "cpu";
    metric["resource"][side].get("averageUtilization").filter(|load| is_cpu && !load.is_null())
}

/// The field that describes a sort of metric.
fn source_of(metric: &Value) -> Option<&'static str> {
    let kind = str_of(metric, "type");
    newer::SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field)
}

/// The name of an amount in v1: `targetAverageValue`.
fn named(side: &str, amount: &str) -> String {
    match (side, amount) {
        ("target", "Value") => "targetValue".to_owned(),
        _ => format!("{side}{amount}"),
    }
}

/// Which fields a source has in v1: where the name and the selector of the metric stand, and each
/// amount with its name in v2.
fn amounts(source: &str, side: &str) -> Vec<(String, &'static str)> {
    let average = (named(side, "AverageValue"), "averageValue");
    match source {
        "resource" | "containerResource" => {
            vec![(named(side, "AverageUtilization"), "averageUtilization"), average]
        }
        "pods" => vec![average],
        "object" => {
            vec![(named(side, "Value"), "value"), ("averageValue".to_owned(), "averageValue")]
        }
        _ => vec![(named(side, "Value"), "value"), average],
    }
}

/// The fields beside the amounts: as v1 calls them, and where v2 has them.
fn others(source: &str) -> &'static [(&'static str, &'static [&'static str])] {
    match source {
        "resource" => &[("name", &["name"])],
        "containerResource" => &[("name", &["name"]), ("container", &["container"])],
        "pods" => &[("metricName", &["metric", "name"]), ("selector", &["metric", "selector"])],
        "object" => &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
        ],
        _ => &[("metricName", &["metric", "name"]), ("metricSelector", &["metric", "selector"])],
    }
}

fn older_metric(metric: &Value, side: &str) -> Value {
    let Some(field) = source_of(metric) else { return metric.clone() };
    let source = &metric[field];
    let mut older = Map::new();
    for (name, path) in others(field) {
        let value = path.iter().try_fold(source, |value, part| value.get(part));
        older.extend(value.map(|value| ((*name).to_owned(), value.clone())));
    }
    for (name, amount) in amounts(field, side) {
        older.extend(source[side].get(amount).map(|value| (name, value.clone())));
    }
    json!({"type": metric["type"], field: older})
}

fn newer_metric(metric: &Value, side: &str) -> Value {
    let Some(field) = source_of(metric) else { return metric.clone() };
    let source = &metric[field];
    let mut newer = json!({});
    for (name, path) in others(field) {
        let Some(value) = source.get(name) else { continue };
        match path {
            [outer, inner] => newer[outer][inner] = value.clone(),
            [only, ..] => newer[only] = value.clone(),
            [] => {}
        }
    }
    for (name, amount) in amounts(field, side) {
        let Some(value) = source.get(&name).filter(|value| !value.is_null()) else { continue };
        newer[side][amount] = value.clone();
        if side == "target" {
            newer[side]["type"] = match amount {
                "averageUtilization" => "Utilization",
                "averageValue" => "AverageValue",
                _ => "Value",
            }
            .into();
        }
    }
    json!({"type": metric["type"], field: newer})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_goes_to_the_older_version_and_back_without_loss() {
        let newer = Object::new(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "minReplicas": 1, "maxReplicas": 3,
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 10, "selectPolicy": "Max",
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}]}},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "hits"},
                        "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {"metric": {"name": "queue"},
                        "describedObject": {"kind": "Service", "name": "s"},
                        "target": {"type": "Value", "value": "5"}}},
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 60}}},
                ],
            },
            "status": {"desiredReplicas": 2, "currentReplicas": 1,
                "conditions": [{"type": "AbleToScale", "status": "True"}]},
        }))
        .expect("an object");
        let mut older = newer.clone();
        to_older(&mut older);
        assert_eq!(older.at("/spec/targetCPUUtilizationPercentage"), Some(&json!(60)));
        assert_eq!(older.at("/spec/metrics"), None);
        let kept: Value = serde_json::from_str(older.annotation(METRICS).unwrap()).unwrap();
        assert_eq!(
            kept[0],
            json!({"type": "Pods", "pods": {"metricName": "hits", "targetAverageValue": "10"}})
        );
        assert_eq!(kept[1]["object"]["targetValue"], "5");
        let mut back = older;
        to_newer(&mut back);
        // Scaling up gets its defaults, which say what not saying them means.
        back.remove(&["spec", "behavior", "scaleUp"]);
        assert_eq!(back.value(), newer.value());
    }

    #[test]
    fn one_that_says_nothing_is_for_four_fifths_of_the_processors() {
        let mut older = Object::new(json!({
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3},
        }))
        .expect("an object");
        KIND.strategy.default(&mut older);
        let newer = as_newer(&older);
        assert_eq!(
            newer.at("/spec/metrics/0/resource/target"),
            Some(&json!({"type": "Utilization", "averageUtilization": 80}))
        );
        assert_eq!(newer.at("/spec/metrics/1"), None);
        assert_eq!(KIND.strategy.validate(&older), []);
    }
}
