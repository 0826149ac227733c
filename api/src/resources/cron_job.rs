//! CronJob: a job again and again.

pub mod schedule;

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use super::defaults::{child, fill, fill_empty};
use super::job::job_spec;
use super::pod_spec::defaults as pod_defaults;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME, NONE};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::numbers::non_negative;
use schedule::Schedule;

/// The kind.
pub static KIND: Kind = Kind {
    group: "batch",
    version: "v1",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "cronjobs",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &CronJob,
};

/// A job's name is this one's and eleven characters for the time.
const NAME_MAX: usize = 52;
const SUCCESSFUL_HISTORY: i64 = 3;
const FAILED_HISTORY: i64 = 1;

static COLUMNS: [Column; 10] = [
    NAME,
    table::text("Schedule", "When its jobs begin."),
    table::text("Timezone", "In which zone the schedule is meant."),
    Column { kind: "boolean", ..table::text("Suspend", "Whether it rests.") },
    table::integer("Active", "How many of its jobs run."),
    table::text("Last Schedule", "When a job began last."),
    AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide("Selector", "Which pods are its jobs'."),
];

#[derive(Debug)]
struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        fill_empty(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", SUCCESSFUL_HISTORY);
        fill(spec, "failedJobsHistoryLimit", FAILED_HISTORY);
        let Some(template) = child(spec, "jobTemplate") else { return };
        fill(template, "metadata", serde_json::Map::new());
        if let Some(pods) = child(template, "spec").and_then(|job| child(job, "template")) {
            pod_defaults::template(pods);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let (metadata, spec) = (root.at("metadata"), root.at("spec"));
            if metadata.at("name").len() > NAME_MAX {
                let name = metadata.at("name");
                errors.invalid(&name, format!("must be no more than {NAME_MAX} characters"));
            }
            schedule(errors, &spec.at("schedule"));
            non_negative(errors, &spec.at("startingDeadlineSeconds"));
            non_negative(errors, &spec.at("successfulJobsHistoryLimit"));
            non_negative(errors, &spec.at("failedJobsHistoryLimit"));
            errors.one_of(&spec.at("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
            time_zone(errors, &spec.at("timeZone"));
            let template = spec.at("jobTemplate");
            let job = template.at("spec");
            if job.at("manualSelector").is_set() {
                errors.not_supported(&job.at("manualSelector"), &["nil", "false"]);
            }
            job_spec(errors, &job);
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let last = object.str_at("/status/lastScheduleTime");
        let pods = "/spec/jobTemplate/spec/template/spec/containers";
        let [names, images] = table::containers(object.at(pods));
        let suspended = if object.bool_at("/spec/suspend") { "True" } else { "False" };
        let active = object.at("/status/active").and_then(Value::as_array).map_or(0, Vec::len);
        vec![
            object.name().into(),
            object.str_at("/spec/schedule").into(),
            table::or_none(object.str_at("/spec/timeZone")),
            suspended.into(),
            active.into(),
            if last.is_empty() { NONE.into() } else { table::since(last, now).into() },
            table::age(object, now),
            names,
            images,
            table::labels(object.at("/spec/jobTemplate/spec/selector")),
        ]
    }
}

fn time_zone(errors: &mut Errors, at: &At<'_>) {
    if !at.is_set() {
        return;
    }
    if at.str().is_empty() {
        errors.invalid(at, "timeZone must be nil or non-empty string");
    } else if at.str().eq_ignore_ascii_case("local") {
        errors.invalid(
            at,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    } else if jiff::tz::TimeZone::get(at.str()).is_err() {
        errors.invalid(at, format!("unknown time zone {}", at.str()));
    }
}

fn schedule(errors: &mut Errors, at: &At<'_>) {
    if at.str().is_empty() {
        return errors.required(at, "");
    }
    if at.str().contains("TZ") {
        errors.invalid(at, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Err(problem) = Schedule::parse(at.str()) {
        errors.invalid(at, problem);
    }
}
