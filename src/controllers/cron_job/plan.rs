//! What a CronJob does now: which of its Jobs begins, which are forgotten, and when to look again.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kontiki_api::resources::cron_job::schedule::Schedule;

use crate::controllers::events::{self, EventType};
use crate::controllers::job::plan as job_plan;
use crate::controllers::owners;

/// From how many missed moments on somebody should look.
const MISSED_MAX: usize = 100;
/// How much later than its moment a job begins, so that clocks surely show it.
const MARGIN: Duration = Duration::from_millis(100);

/// Something to be told: type, reason, message.
pub type News = (EventType, &'static str, String);

/// What to do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What to tell.
    pub news: Vec<News>,
    /// Jobs that make room for the new one.
    pub replace: Vec<Arc<Job>>,
    /// The moment for which to create a Job.
    pub create: Option<Timestamp>,
    /// Jobs that the history has no room for.
    pub forget: Vec<Arc<Job>>,
    /// The status, before a Job is created.
    pub status: CronJobStatus,
    /// When to look again.
    pub again_after: Option<Duration>,
}

/// The name of the Job that begins at a moment.
pub fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", owners::name(&cron.metadata), at.as_second() / 60)
}

/// The moments of the schedule are meant in this zone. `Err` says what is wrong with it.
pub fn zone(cron: &CronJob) -> Result<TimeZone, String> {
    match cron.spec.as_ref().and_then(|spec| spec.time_zone.as_deref()) {
        None => Ok(TimeZone::UTC),
        Some(name) => {
            TimeZone::get(name).map_err(|error| format!("invalid timeZone: {name:?}: {error}"))
        }
    }
}

/// Notes in the status that the Job of a moment was created.
pub fn note_created(status: &mut CronJobStatus, job: &Job, at: Timestamp) {
    status.active.get_or_insert_default().push(events::reference(job));
    status.last_schedule_time = Some(Time(at));
}

/// Decides. `jobs` are the Jobs that the CronJob controls.
pub fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    take_stock(cron, jobs, &mut plan);
    plan.forget = beyond_history(cron, jobs);
    let suspended = cron.spec.as_ref().is_none_or(|spec| spec.suspend == Some(true));
    if cron.metadata.deletion_timestamp.is_none() && !suspended {
        begin(cron, jobs, now, &mut plan);
    }
    plan.status.active = plan.status.active.take().filter(|active| !active.is_empty());
    plan
}

fn finished(job: &Job) -> Option<&str> {
    job_plan::ended(job).map(|condition| condition.type_.as_str())
}

/// Brings the list of active Jobs to what is there.
fn take_stock(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    let mut active = plan.status.active.take().unwrap_or_default();
    let normal = |reason, message| (EventType::Normal, reason, message);
    for job in jobs {
        let (name, uid) = (owners::name(&job.metadata), &job.metadata.uid);
        let is_known = active.iter().any(|one| one.uid == *uid);
        match (is_known, finished(job)) {
            (false, None) if is_forgotten(cron, job) => active.push(events::reference(&**job)),
            (false, None) => {
                let message =
                    format!("Saw a job that the controller did not create or forgot: {name}");
                plan.news.push((EventType::Warning, "UnexpectedJob", message));
            }
            (true, Some(how)) => {
                active.retain(|one| one.uid != *uid);
                let message = format!("Saw completed job: {name}, condition: {how}");
                plan.news.push(normal("SawCompletedJob", message));
            }
            _ => {}
        }
        let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if finished(job) == Some("Complete") && ended > plan.status.last_successful_time {
            plan.status.last_successful_time = ended;
        }
    }
    active.retain(|one| {
        let is_there = jobs.iter().any(|job| job.metadata.uid == one.uid);
        if !is_there {
            let name = one.name.as_deref().unwrap_or_default();
            let message = format!("Active job went missing: {name}");
            plan.news.push(normal("MissingJob", message));
        }
        is_there
    });
    plan.status.active = Some(active);
}

/// Whether the Job was created for a moment that is not noted yet: its leader ended in between.
fn is_forgotten(cron: &CronJob, job: &Job) -> bool {
    let annotations = job.metadata.annotations.as_ref();
    let at = annotations.and_then(|all| all.get(super::SCHEDULED_AT)?.parse::<Timestamp>().ok());
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    at.is_some_and(|at| last.is_none_or(|last| last.0 < at))
}

/// Finds the moment that is due, and decides whether its Job begins.
fn begin(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp, plan: &mut Plan) {
    let Some(spec) = &cron.spec else { return };
    let warning = |reason, message| (EventType::Warning, reason, message);
    let zone = match zone(cron) {
        Ok(zone) => zone,
        Err(why) => return plan.news.push(warning("UnknownTimeZone", why)),
    };
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(why) => {
            let message = format!("unparseable schedule: {:?} : {why}", spec.schedule);
            return plan.news.push(warning("UnparseableSchedule", message));
        }
    };
    let earliest = earliest(cron, now);
    let due = schedule.latest(earliest, now, &zone);
    let next = schedule.next_after(due.unwrap_or(earliest).max(earliest), &zone);
    plan.again_after = next
        .and_then(|next| Duration::try_from(next.duration_since(now)).ok())
        .map(|left| left + MARGIN);
    let Some(due) = due else { return };
    if missed_too_many(&schedule, earliest, now, &zone) {
        let message = "too many missed start times. Set or decrease \
                       .spec.startingDeadlineSeconds or check clock skew";
        plan.news.push(warning("TooManyMissedTimes", message.to_owned()));
    }
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|deadline| due + deadline < now) {
        let at = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
        let message = format!("Missed scheduled time to start a job: {at}");
        return plan.news.push(warning("MissSchedule", message));
    }
    let name = job_name(cron, due);
    let active = plan.status.active.clone().unwrap_or_default();
    if active.iter().any(|one| one.name.as_ref() == Some(&name)) {
        plan.status.last_schedule_time = Some(Time(due));
        return;
    }
    decide(spec.concurrency_policy.as_deref(), &active, jobs, due, plan);
}

fn decide(
    policy: Option<&str>,
    active: &[ObjectReference],
    jobs: &[Arc<Job>],
    due: Timestamp,
    plan: &mut Plan,
) {
    match policy {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency \
                           policy is Forbid";
            plan.news.push((EventType::Normal, "JobAlreadyActive", message.to_owned()));
        }
        Some("Replace") => {
            let is_active = |job: &&Arc<Job>| active.iter().any(|one| one.uid == job.metadata.uid);
            plan.replace = jobs.iter().filter(is_active).cloned().collect();
            plan.status.active = None;
            plan.create = Some(due);
        }
        _ => plan.create = Some(due),
    }
}

/// After which moment those count that are due.
fn earliest(cron: &CronJob, now: Timestamp) -> Timestamp {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let since = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let deadline = cron.spec.as_ref().and_then(|spec| spec.starting_deadline_seconds);
    deadline.map_or(since, |seconds| since.max(now - SignedDuration::from_secs(seconds)))
}

fn missed_too_many(
    schedule: &Schedule,
    earliest: Timestamp,
    now: Timestamp,
    zone: &TimeZone,
) -> bool {
    let moments = std::iter::successors(schedule.next_after(earliest, zone), |at| {
        schedule.next_after(*at, zone)
    });
    moments.take_while(|at| *at <= now).take(MISSED_MAX + 1).count() > MISSED_MAX
}

/// The oldest finished Jobs that are more than the limits of successful and failed ones.
fn beyond_history(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let Some(spec) = &cron.spec else { return Vec::new() };
    let mut beyond = Vec::new();
    for (how, limit) in [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ] {
        let Some(limit) = limit else { continue };
        let mut all: Vec<_> = jobs.iter().filter(|job| finished(job) == Some(how)).collect();
        all.sort_by_key(|job| {
            let begun = job.status.as_ref().and_then(|status| status.start_time.as_ref());
            (begun.map(|time| time.0), owners::name(&job.metadata).to_owned())
        });
        let surplus = all.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        beyond.extend(all.into_iter().take(surplus).cloned());
    }
    beyond
}
