//! What the controllers of pods have in common: a selector, a template, replicas, their columns.

use serde_json::Value;

use super::pod_spec::validate;
use crate::object::Object;
use crate::table;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::labels::{label_selector, selects, selects_everything};
use crate::validation::numbers::non_negative;

/// Where a workload keeps its replicas, in kinds of the group `apps`.
pub const SCALE: crate::registry::strategy::ScalePointers =
    crate::registry::strategy::ScalePointers {
        spec_replicas: "/spec/replicas",
        status_replicas: "/status/replicas",
        selector: "/spec/selector",
    };

/// The selector, which must choose something, and the template, which it must choose. `kind` is the
/// workload's name in the sentences.
pub fn selector_and_template(errors: &mut Errors, spec: &At<'_>, kind: &str) {
    let selector = spec.at("selector");
    if selector.is_set() {
        label_selector(errors, &selector);
        if selects_everything(selector.value()) {
            errors.invalid(&selector, format!("empty selector is invalid for {kind}"));
        }
    } else {
        errors.required(&selector, "");
    }
    template(errors, spec);
}

/// The template of a workload that keeps its pods running.
pub fn template(errors: &mut Errors, spec: &At<'_>) {
    let (selector, template) = (spec.at("selector"), spec.at("template"));
    if !template.is_set() {
        return errors.required(&template, "");
    }
    template_matches(errors, &selector, &template);
    validate::template(errors, &template);
    let pod = template.at("spec");
    let policy = pod.at("restartPolicy");
    if !["", "Always"].contains(&policy.str()) {
        errors.not_supported(&policy, &["Always"]);
    }
}

/// The selector, where it chooses anything, must choose the template's labels.
pub fn template_matches(errors: &mut Errors, selector: &At<'_>, template: &At<'_>) {
    if !selector.is_set() || selects_everything(selector.value()) {
        return;
    }
    let metadata = template.at("metadata");
    let labels = metadata.at("labels");
    let none = serde_json::Map::new();
    if !selects(selector.value(), labels.map().unwrap_or(&none)) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
}

/// The counts of a status, none of which may be negative.
pub fn counts(errors: &mut Errors, status: &At<'_>, fields: &[&str]) {
    for field in fields {
        non_negative(errors, &status.at(field));
    }
}

/// The first count of a status may not be above the second.
pub fn not_above(errors: &mut Errors, status: &At<'_>, count: &str, most: &str, sentence: &str) {
    let count = status.at(count);
    if count.int_or_zero() > status.at(most).int_or_zero() {
        errors.invalid_value(&count, count.int_or_zero(), sentence);
    }
}

/// The cells about a template that are shown with `-o wide`: containers, images, selector.
pub fn wide_cells(object: &Object) -> [Value; 3] {
    let [names, images] = table::containers(object.at("/spec/template/spec/containers"));
    [names, images, table::labels(object.at("/spec/selector"))]
}
