//! CronJob: a job again and again.

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
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

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
    } else if let Err(problem) = parse_schedule(at.str()) {
        errors.invalid(at, problem);
    }
}

/// Checks the five fields of a schedule: minute, hour, day, month, day of the week.
fn parse_schedule(text: &str) -> Result<(), String> {
    if let Some(named) = text.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = named.strip_prefix("every ");
        let is_duration = |text: &str| text.parse::<jiff::SignedDuration>().is_ok();
        if known.contains(&named) || every.is_some_and(is_duration) {
            return Ok(());
        }
        return Err(format!("unrecognized descriptor: {text}"));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        let found = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{found}]", fields.len()));
    }
    let none: &[&str] = &[];
    let bounds =
        [(0, 59, none), (0, 23, none), (1, 31, none), (1, 12, &MONTHS[..]), (0, 6, &DAYS[..])];
    for (field, (low, high, words)) in fields.iter().zip(bounds) {
        field.split(',').try_for_each(|part| parse_part(part, low, high, words))?;
    }
    Ok(())
}

/// `*`, `3`, `1-5`, `mon-fri`, any of them with `/step`.
fn parse_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
    if let Some(step) = step {
        match step.parse::<u32>() {
            Ok(0) => return Err(format!("step of range should be a positive number: {part}")),
            Ok(_) => {}
            Err(_) => return Err(format!("failed to parse int from {step}: {part}")),
        }
    }
    if ["*", "?"].contains(&range) {
        return Ok(());
    }
    let number = |text: &str| -> Result<u32, String> {
        let word = text.to_lowercase();
        match (1_u32..).zip(words).find(|(_, name)| **name == word) {
            Some((index, _)) => Ok(index - 1 + low),
            None => text.parse().map_err(|_| format!("failed to parse int from {text}: {part}")),
        }
    };
    let (first, last) = range.split_once('-').map_or((range, range), |(f, l)| (f, l));
    let (first, last) = (number(first)?, number(last)?);
    if first < low {
        return Err(format!("beginning of range ({first}) below minimum ({low}): {part}"));
    }
    if last > high {
        return Err(format!("end of range ({last}) above maximum ({high}): {part}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for good in ["* * * * *", "*/5 0-6,12 1 jan-mar mon", "@daily", "@every 1h30m", "0 0 ? * 6"]
        {
            assert_eq!(parse_schedule(good), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("x", "expected exactly 5 fields, found 1: [x]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: a"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(parse_schedule(bad), Err(expected.to_owned()), "{bad}");
        }
    }
}
