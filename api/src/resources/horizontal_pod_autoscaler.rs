//! HorizontalPodAutoscaler: as many pods as the load asks for.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check;
use super::defaults::{child, child_or_new, fill, put, str_of};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "horizontalpodautoscalers",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &HorizontalPodAutoscaler,
};

/// How busy the processors may be, where nothing is said.
pub(super) const CPU_PERCENT: i64 = 80;
const SHOWN_MAX: usize = 2;
/// Each sort of metric, with the field that describes it.
pub(super) const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

static COLUMNS: [Column; 7] = [
    NAME,
    table::text("Reference", "What it scales."),
    table::text("Targets", "What it measures, and what that should be."),
    table::text("MinPods", "The fewest pods there may be."),
    table::text("MaxPods", "The most pods there may be."),
    table::text("Replicas", "How many pods there are."),
    AGE,
];

#[derive(Debug)]
struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn initial_status(&self) -> Value {
        serde_json::json!({"currentMetrics": null, "desiredReplicas": 0})
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        fill(spec, "minReplicas", 1);
        let has_metrics =
            spec.get("metrics").and_then(Value::as_array).is_some_and(|m| !m.is_empty());
        if !has_metrics {
            let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT});
            spec["metrics"] =
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        }
        if let Some(behavior) = child(spec, "behavior") {
            default_rules(
                behavior,
                "scaleUp",
                &json!([
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]),
            );
            fill(child_or_new(behavior, "scaleUp"), "stabilizationWindowSeconds", 0);
            default_rules(
                behavior,
                "scaleDown",
                &json!([
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]),
            );
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let (least, most) = (spec.at("minReplicas"), spec.at("maxReplicas"));
            if least.int().is_some_and(|count| count < 1) {
                errors.invalid(&least, "must be greater than or equal to 1");
            }
            if most.int_or_zero() < 1 {
                errors.invalid_value(&most, most.int_or_zero(), "must be greater than 0");
            }
            if least.int().is_some_and(|least| most.int_or_zero() < least) {
                let sentence = "must be greater than or equal to `minReplicas`";
                errors.invalid_value(&most, most.int_or_zero(), sentence);
            }
            let target = spec.at("scaleTargetRef");
            for field in ["kind", "name"] {
                let check = |text: &str| names::name_is_path_segment(text, false);
                errors.required_form(&target.at(field), check);
            }
            for metric in spec.at("metrics").items() {
                validate_metric(errors, &metric);
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let target = |field: &str| object.str_at(&format!("/spec/scaleTargetRef/{field}"));
        let least = object.i64_at("/spec/minReplicas");
        vec![
            object.name().into(),
            format!("{}/{}", target("kind"), target("name")).into(),
            targets(object).into(),
            least.map_or("<unset>".to_owned(), |least| least.to_string()).into(),
            table::count(object, "/spec/maxReplicas"),
            table::count(object, "/status/currentReplicas"),
            table::age(object, now),
        ]
    }
}

fn default_rules(behavior: &mut Value, direction: &str, policies: &Value) {
    let rules = child_or_new(behavior, direction);
    fill(rules, "selectPolicy", "Max");
    let has_policies =
        rules.get("policies").and_then(Value::as_array).is_some_and(|p| !p.is_empty());
    if !has_policies {
        put(rules, "policies", policies.clone());
    }
}

fn validate_metric(errors: &mut Errors, at: &At<'_>) {
    let kind = at.at("type");
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind.str()) else {
        if kind.str().is_empty() {
            return errors.required(&kind, "must specify a metric source type");
        }
        return errors.not_supported(&kind, &SOURCES.map(|(name, _)| name));
    };
    let source = at.at(field);
    if !source.is_set() {
        return errors.required(&source, "must populate information for the given metric source");
    }
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != field) {
        if at.at(other).is_set() {
            let sentence = "must populate the given metric source only";
            errors.forbidden(&at.at(other), sentence);
        }
    }
    let target = source.at("target");
    errors.one_of(&target.at("type"), &["AverageValue", "Utilization", "Value"]);
}

/// What is measured beside what is wanted, for the first metrics.
fn targets(object: &Object) -> String {
    let metrics =
        object.at("/spec/metrics").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let current = object.at("/status/currentMetrics").and_then(Value::as_array);
    let mut shown: Vec<String> = Vec::new();
    for (index, metric) in metrics.iter().enumerate().take(SHOWN_MAX) {
        let kind = str_of(metric, "type");
        let field = SOURCES.iter().find(|(name, _)| *name == kind).map_or("", |(_, field)| *field);
        let wanted = &metric[field]["target"];
        let seen = current.and_then(|list| list.get(index)).map(|seen| &seen[field]["current"]);
        let part = |name: &str| {
            let suffix = if name == "averageUtilization" { "%" } else { "" };
            let text = |value: &Value| match value {
                Value::String(text) => format!("{text}{suffix}"),
                other => format!("{other}{suffix}"),
            };
            let wanted = wanted.get(name)?;
            let seen = seen.and_then(|seen| seen.get(name)).map_or("<unknown>".to_owned(), text);
            Some(format!("{seen}/{}", text(wanted)))
        };
        let pair = ["averageUtilization", "averageValue", "value"].into_iter().find_map(part);
        let name = str_of(&metric[field], "name");
        let pair = pair.unwrap_or_else(|| "<unknown>".to_owned());
        shown.push(if name.is_empty() { pair } else { format!("{name}: {pair}") });
    }
    match metrics.len() {
        0 => table::NONE.to_owned(),
        count if count > SHOWN_MAX => {
            format!("{} + {} more...", shown.join(", "), count - SHOWN_MAX)
        }
        _ => shown.join(", "),
    }
}
