//! StatefulSet: pods with names and volumes of their own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::{child, child_or_new, each, fill, fill_empty, str_of};
use super::pod_spec::defaults as pod_defaults;
use super::workload::{self, SCALE};
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{
    ALL_VERBS, Column, Kind, ScalePointers, Scope, Strategy, Subresource,
};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::{Errors, same};
use crate::validation::labels::{label_selector, labels, selects_everything};
use crate::validation::numbers::non_negative;

/// The kind.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "statefulsets",
    subresources: &[Subresource::SCALE, Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &StatefulSet,
};

const REVISION_HISTORY_LIMIT: i64 = 10;
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

static COLUMNS: [Column; 5] = [
    NAME,
    table::text("Ready", "Number of the pod with ready state"),
    AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
];

#[derive(Debug)]
struct StatefulSet;

impl Strategy for StatefulSet {
    fn initial_status(&self) -> Value {
        serde_json::json!({"availableReplicas": 0, "replicas": 0})
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        fill_empty(spec, "podManagementPolicy", "OrderedReady");
        let strategy = child_or_new(spec, "updateStrategy");
        fill_empty(strategy, "type", "RollingUpdate");
        if str_of(strategy, "type") == "RollingUpdate" {
            fill(child_or_new(strategy, "rollingUpdate"), "partition", 0);
        }
        let retention = child_or_new(spec, "persistentVolumeClaimRetentionPolicy");
        fill_empty(retention, "whenDeleted", "Retain");
        fill_empty(retention, "whenScaled", "Retain");
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
        for claim in each(spec, "volumeClaimTemplates") {
            fill_empty(claim, "apiVersion", "v1");
            fill_empty(claim, "kind", "PersistentVolumeClaim");
            pod_defaults::claim_spec(child_or_new(claim, "spec"));
            fill(claim, "status", json!({"phase": "Pending"}));
        }
        if let Some(template) = child(spec, "template") {
            pod_defaults::template(template);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            policies(errors, &spec);
            for count in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
                non_negative(errors, &spec.at(count));
            }
            let selector = spec.at("selector");
            if selector.is_set() {
                label_selector(errors, &selector);
                if selects_everything(selector.value()) {
                    errors.invalid(&selector, "empty selector is invalid for statefulset");
                }
            } else {
                errors.required(&selector, "");
            }
            template(errors, &spec);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (spec, before) = (new.at("spec"), old.at("spec"));
            let mut rest = spec.value().clone();
            for field in CHANGEABLE {
                if let Some(map) = rest.as_object_mut() {
                    map.remove(field);
                    map.extend(before.value().get(field).map(|v| (field.to_owned(), v.clone())));
                }
            }
            if !same(&rest, before.value()) {
                errors.forbidden(
                    &spec,
                    "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                     'template', 'updateStrategy', 'revisionHistoryLimit', \
                     'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
                );
            }
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let status = root.at("status");
            let counts =
                ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
            non_negative(errors, &status.at("replicas"));
            workload::counts(errors, &status, &counts);
            for count in counts {
                let sentence = "cannot be greater than status.replicas";
                workload::not_above(errors, &status, count, "replicas", sentence);
            }
        })
    }

    fn scale(&self) -> Option<ScalePointers> {
        Some(SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let wanted = object.i64_at("/spec/replicas").unwrap_or(0);
        let ready = object.i64_at("/status/readyReplicas").unwrap_or(0);
        let [names, images, _] = workload::wide_cells(object);
        let ready = format!("{ready}/{wanted}").into();
        vec![object.name().into(), ready, table::age(object, now), names, images]
    }
}

fn policies(errors: &mut Errors, spec: &At<'_>) {
    let policy = spec.at("podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy.str()) {
        errors.invalid(&policy, "must be 'OrderedReady' or 'Parallel'");
    }
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").str() {
        "OnDelete" if rolling.is_set() => {
            errors.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => non_negative(errors, &rolling.at("partition")),
        _ => errors.invalid(&strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        errors.optional_one_of(&retention.at(field), &["Retain", "Delete"]);
    }
    non_negative(errors, &spec.at("ordinals").at("start"));
}

/// Mounts may name claims that only the pods will have; so the pods' own rules are for the pods.
fn template(errors: &mut Errors, spec: &At<'_>) {
    let template = spec.at("template");
    workload::template_matches(errors, &spec.at("selector"), &template);
    let (metadata, pod) = (template.at("metadata"), template.at("spec"));
    labels(errors, &template.at("labels").with(metadata.at("labels").value()));
    let policy = pod.at("restartPolicy");
    if policy.str() != "Always" {
        errors.not_supported(&policy, &["Always"]);
    }
    let deadline = pod.at("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.forbidden(&deadline, "activeDeadlineSeconds in StatefulSet is not Supported");
    }
    if pod.at("containers").is_empty() {
        errors.required(&pod.at("containers"), "");
    }
}
