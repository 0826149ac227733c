//! LimitRange: how much the pods of a namespace may ask for, and get by default.

use serde_json::Value;

use super::check;
use super::defaults::{child, child_or_new, each, put, quantity_of, resource_list, str_of};
use crate::object::Object;
use crate::quantity::Quantity;
use crate::registry::strategy::{ALL_VERBS, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "limitranges",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &LimitRange,
};

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

#[derive(Debug)]
struct LimitRange;

impl Strategy for LimitRange {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        for limit in each(spec, "limits") {
            for list in LISTS {
                resource_list(child(limit, list));
            }
            if str_of(limit, "type") == "Container" {
                default_container(limit);
            }
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let mut seen = Vec::new();
            for limit in spec.at("limits").items() {
                let kind = limit.at("type");
                errors.invalid_each(&kind, names::qualified_name(kind.str()));
                if seen.contains(kind.value()) {
                    errors.duplicate(&kind);
                }
                seen.push(kind.value().clone());
                one(errors, &limit);
            }
        })
    }
}

/// The limit is the most there may be, the request the limit or the least there must be.
fn default_container(limit: &mut Value) {
    let list = |limit: &Value, name: &str| {
        limit.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let mut copy = |from: &str, to: &str| {
        for (name, amount) in list(limit, from) {
            let target = child_or_new(limit, to);
            if target.get(&name).is_none() {
                put(target, name.as_str(), amount);
            }
        }
    };
    copy("max", "default");
    copy("default", "defaultRequest");
    copy("min", "defaultRequest");
}

fn one(errors: &mut Errors, limit: &At<'_>) {
    let kind = limit.at("type");
    if kind.str() == "Pod" {
        for list in ["default", "defaultRequest"] {
            if !limit.at(list).is_empty() {
                let list = limit.at(list);
                errors.forbidden(&list, "may not be specified when `type` is 'Pod'");
            }
        }
    }
    let storage = |list: &str| limit.at(list).key("storage").is_set();
    if kind.str() == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        errors.required(
            &limit.at("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    let get = |list: &str, name: &str| quantity_of(limit.at(list).key(name).value());
    let mut resources: Vec<&str> = LISTS
        .iter()
        .filter_map(|list| limit.value().get(*list)?.as_object())
        .flat_map(|map| map.keys().map(String::as_str))
        .collect();
    resources.sort_unstable();
    resources.dedup();
    for name in resources {
        let mut compare = |list: &str, small: (&str, &str), large: (&str, &str)| {
            if let (Some(low), Some(high)) = (get(small.0, name), get(large.0, name))
                && low > high
            {
                let list = limit.at(list);
                let shown = get_shown(&list, name);
                let sentence =
                    format!("{} value {low} is greater than {} value {high}", small.1, large.1);
                errors.invalid_value(&list.key(name), shown, sentence);
            }
        };
        let (min, max) = (("min", "min"), ("max", "max"));
        let request = ("defaultRequest", "default request");
        compare("min", min, max);
        compare("defaultRequest", min, request);
        compare("defaultRequest", request, max);
        compare("defaultRequest", request, ("default", "default limit"));
        compare("default", min, ("default", "default"));
        compare("default", ("default", "default"), max);
        let ratio = limit.at("maxLimitRequestRatio");
        let ratio = ratio.key(name);
        if let Some(most) = quantity_of(ratio.value()).filter(|most| *most < Quantity::whole(1)) {
            errors.invalid(&ratio, format!("ratio {most} is less than 1"));
        }
    }
}

fn get_shown(list: &At<'_>, name: &str) -> Value {
    list.key(name).value().clone()
}
