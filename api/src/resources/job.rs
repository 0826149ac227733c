//! Job: pods that run to an end.

use jiff::Timestamp;
use serde_json::Value;

use super::defaults::{child, child_or_new, fill, fill_empty, is_true, put};
use super::pod_spec::{defaults as pod_defaults, validate};
use super::workload;
use super::{check, check_change};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::labels::label_selector;
use crate::validation::numbers::non_negative;

/// The kind.
pub static KIND: Kind = Kind {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    short_names: &[],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "jobs",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &Job,
};

/// The label of a job's pods that says whose they are.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The label of a job's pods that says its name.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const BACKOFF_LIMIT: i64 = 6;

static COLUMNS: [Column; 8] = [
    NAME,
    table::text("Status", "Status of the job."),
    table::text("Completions", "How many of its pods have succeeded."),
    table::text("Duration", "Time required to complete the job."),
    AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide("Selector", "Which pods are its own."),
];

#[derive(Debug)]
struct Job;

impl Strategy for Job {
    fn default(&self, object: &mut Object) {
        let root = object.value_mut();
        let Some(spec) = child(root, "spec") else { return };
        let counted = |spec: &Value, field: &str| spec.get(field).is_some_and(|v| !v.is_null());
        if !counted(spec, "completions") && !counted(spec, "parallelism") {
            fill(spec, "completions", 1);
        }
        fill(spec, "parallelism", 1);
        let limit =
            if counted(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { BACKOFF_LIMIT };
        fill(spec, "backoffLimit", limit);
        fill_empty(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        let replacement =
            if counted(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        fill_empty(spec, "podReplacementPolicy", replacement);
        if let Some(template) = child(spec, "template") {
            pod_defaults::template(template);
        }
        super::replica_set::labels_from_template(object);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        self.prepare_create_default(object);
        if !is_true(&object.value()["spec"], "manualSelector") {
            generate_selector(object);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let selector = spec.at("selector");
            if selector.is_set() {
                label_selector(errors, &selector);
            } else {
                errors.required(&selector, "");
            }
            job_spec(errors, &spec);
            let template = spec.at("template");
            workload::template_matches(errors, &selector, &template);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            let indexed = new.at("completionMode").str() == "Indexed";
            let completions = new.at("completions");
            if !indexed || completions.value() != new.at("parallelism").value() {
                errors.immutable(&completions, &old.at("completions"));
            }
            for field in ["selector", "template", "completionMode", "podFailurePolicy"] {
                errors.immutable(&new.at(field), &old.at(field));
            }
            for field in ["backoffLimitPerIndex", "managedBy", "successPolicy"] {
                errors.immutable(&new.at(field), &old.at(field));
            }
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            workload::counts(
                errors,
                &root.at("status"),
                &["active", "succeeded", "failed", "ready"],
            );
        })
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn field(&self, object: &Object, path: &str) -> String {
        match path {
            "status.successful" => object.i64_at("/status/succeeded").unwrap_or(0).to_string(),
            _ => String::new(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![
            object.name().into(),
            state(object).into(),
            completions(object).into(),
            duration(object, now).into(),
            table::age(object, now),
        ];
        cells.extend(workload::wide_cells(object));
        cells
    }
}

/// A job finds its pods by its own uid, which their labels carry.
fn generate_selector(object: &mut Object) {
    let (uid, name) = (object.uid().to_owned(), object.name().to_owned());
    let spec = child_or_new(object.value_mut(), "spec");
    let template = child_or_new(spec, "template");
    let labels = child_or_new(child_or_new(template, "metadata"), "labels");
    // The unprefixed names are older; clients still look for them.
    for (key, value) in
        [("job-name", &name), (JOB_NAME, &name), ("controller-uid", &uid), (CONTROLLER_UID, &uid)]
    {
        put(labels, key, value.clone());
    }
    let selector = child_or_new(spec, "selector");
    put(child_or_new(selector, "matchLabels"), CONTROLLER_UID, uid);
}

/// The rules of a job's specification, in a job or in the template of one.
pub fn job_spec(errors: &mut Errors, spec: &At<'_>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(errors, &spec.at(field));
    }
    let mode = spec.at("completionMode");
    errors.optional_one_of(&mode, &["NonIndexed", "Indexed"]);
    let completions = spec.at("completions");
    if mode.str() == "Indexed" && !completions.is_set() {
        errors.required(&completions, "when completion mode is Indexed");
    }
    let replacement = spec.at("podReplacementPolicy");
    errors.optional_one_of(&replacement, &["Failed", "TerminatingOrFailed"]);
    let template = spec.at("template");
    validate::template(errors, &template);
    let pod = template.at("spec");
    let policy = pod.at("restartPolicy");
    match policy.str() {
        "OnFailure" | "Never" => {}
        "" | "Always" => {
            errors.required(&policy, "valid values: \"OnFailure\", \"Never\"");
        }
        _ => errors.not_supported(&policy, &["OnFailure", "Never"]),
    }
}

fn state(job: &Object) -> &'static str {
    let conditions = job.at("/status/conditions").and_then(Value::as_array);
    let has = |kind: &str| {
        conditions.is_some_and(|list| {
            list.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
        })
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if job.is_terminating() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Object) -> String {
    let succeeded = job.i64_at("/status/succeeded").unwrap_or(0);
    match (job.i64_at("/spec/completions"), job.i64_at("/spec/parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Object, now: Timestamp) -> String {
    let Ok(begun) = job.str_at("/status/startTime").parse() else { return String::new() };
    let ended = job.str_at("/status/completionTime").parse().unwrap_or(now);
    table::human_duration(table::seconds_between(begun, ended))
}
