//! How many replicas a metric asks for: pure arithmetic over what was measured and the pods.
//!
//! Pods of which nothing is known are held for whatever moves the scale least, and pods that are not
//! ready yet do not count for more: so neither makes the number jump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use kontiki_api::quantity::Quantity;

use crate::controllers::owners;
use crate::controllers::pods::{condition, is_ready, is_terminating, phase};

/// How long after its start a pod may use processors for its own preparation.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// How long after its start a pod's first readiness is awaited.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What a metric says of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Thousandths.
    pub value: i64,
    /// When it was measured.
    pub at: Timestamp,
    /// Over which time before.
    pub window: SignedDuration,
}

/// What a metric says, by the names of the pods.
pub type Samples = BTreeMap<String, Sample>;

/// How far the use may be from what is wanted before anything changes, as a part of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    /// Above.
    pub up: f64,
    /// Below.
    pub down: f64,
}

impl Tolerances {
    fn cover(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// The pods of a scale and what bounds the answer.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// How many replicas are wanted now.
    pub current: i32,
    /// The pods that the selector selects.
    pub pods: &'a [Arc<Pod>],
    /// Tolerances.
    pub tolerances: Tolerances,
    /// Now.
    pub now: Timestamp,
}

/// What a metric asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// So many replicas.
    pub replicas: i32,
    /// What is used, in percent of what was requested; only where that is the target.
    pub utilization: Option<i32>,
    /// What is used: in thousandths, on the average or in all, as the target says.
    pub value: i64,
}

/// The pods by what their samples are worth.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

#[allow(clippy::cast_precision_loss, reason = "ratios are compared with a tolerance of percents")]
fn float(value: i64) -> f64 {
    value as f64
}

fn float_of(count: usize) -> f64 {
    float(i64::try_from(count).unwrap_or(i64::MAX))
}

#[allow(clippy::cast_possible_truncation, reason = "cut to the range just before")]
fn ceil(replicas: f64) -> i32 {
    replicas.ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

fn group(basis: &Basis<'_>, samples: &Samples, is_cpu: bool) -> Groups {
    let mut groups = Groups::default();
    for pod in basis.pods {
        let name = owners::name(&pod.metadata).to_owned();
        if is_terminating(pod) || phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else if let Some(sample) = samples.get(&name) {
            if is_cpu && !counts(pod, sample, basis.now) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// Whether what a pod uses of processors says something about its work.
fn counts(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (condition(pod, "Ready"), started) else { return false };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let is_unready = ready.status == "False";
    if started.0 + CPU_INITIALIZATION > now {
        // Measured wholly after it became ready.
        return !is_unready && sample.at >= changed + sample.window;
    }
    // One that never became ready has not begun to work.
    !(is_unready && started.0 + INITIAL_READINESS > changed)
}

/// As many replicas as bring the use to `target` percent of what the pods request.
pub fn for_utilization(
    basis: &Basis<'_>,
    mut samples: Samples,
    target: i32,
    resource: &str,
    container: Option<&str>,
) -> Result<Proposal, String> {
    let groups = usable(basis, &mut samples, resource == "cpu")?;
    let requests = requests(basis.pods, resource, container)?;
    let (ratio, utilization, value) = utilization_ratio(&samples, &requests, target)?;
    let part = |name: &String, percent: i64| {
        requests.get(name).copied().unwrap_or(0).saturating_mul(percent) / 100
    };
    let full = i64::from(target.max(100));
    let settled = settle(
        basis,
        &mut samples,
        &groups,
        ratio,
        |name| part(name, full),
        |samples| utilization_ratio(samples, &requests, target).map(|(ratio, ..)| ratio),
    )?;
    Ok(Proposal { replicas: settled, utilization: Some(utilization), value })
}

/// As many replicas as bring the average of the pods to `target` thousandths.
pub fn for_average(
    basis: &Basis<'_>,
    mut samples: Samples,
    target: i64,
    resource: &str,
) -> Result<Proposal, String> {
    let groups = usable(basis, &mut samples, resource == "cpu")?;
    let average = |samples: &Samples| {
        let sum: i64 = samples.values().map(|sample| sample.value).sum();
        sum / i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1)
    };
    let value = average(&samples);
    let ratio_of = |samples: &Samples| Ok(float(average(samples)) / float(target));
    let ratio = float(value) / float(target);
    let replicas = settle(basis, &mut samples, &groups, ratio, |_| target, ratio_of)?;
    Ok(Proposal { replicas, utilization: None, value })
}

/// Leaves only the samples of pods that count.
fn usable(basis: &Basis<'_>, samples: &mut Samples, is_cpu: bool) -> Result<Groups, String> {
    if basis.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(basis, samples, is_cpu);
    samples.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
    if samples.is_empty() {
        let why = "did not receive metrics for targeted pods (pods might be unready)";
        return Err(why.to_owned());
    }
    Ok(groups)
}

/// The number of replicas that a ratio asks for, once the pods that do not count have been held for
/// what changes least.
fn settle(
    basis: &Basis<'_>,
    samples: &mut Samples,
    groups: &Groups,
    ratio: f64,
    full: impl Fn(&String) -> i64,
    ratio_of: impl Fn(&Samples) -> Result<f64, String>,
) -> Result<i32, String> {
    let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !grows_with_unready && groups.missing.is_empty() {
        if basis.tolerances.cover(ratio) {
            return Ok(basis.current);
        }
        return Ok(ceil(ratio * float_of(groups.ready)));
    }
    let assumed = |value| Sample { value, at: basis.now, window: SignedDuration::ZERO };
    for name in &groups.missing {
        if ratio < 1.0 {
            samples.insert(name.clone(), assumed(full(name)));
        } else if ratio > 1.0 {
            samples.insert(name.clone(), assumed(0));
        }
    }
    if grows_with_unready {
        for name in &groups.unready {
            samples.insert(name.clone(), assumed(0));
        }
    }
    let anew = ratio_of(samples)?;
    let turned = (ratio < 1.0 && anew > 1.0) || (ratio > 1.0 && anew < 1.0);
    if basis.tolerances.cover(anew) || turned {
        return Ok(basis.current);
    }
    let replicas = ceil(anew * float_of(samples.len()));
    // Pods that do not count must not turn the direction either.
    let against =
        (anew < 1.0 && replicas > basis.current) || (anew > 1.0 && replicas < basis.current);
    Ok(if against { basis.current } else { replicas })
}

/// Ratio to the target, use in percent of the requests, and the average use.
fn utilization_ratio(
    samples: &Samples,
    requests: &BTreeMap<String, i64>,
    target: i32,
) -> Result<(f64, i32, i64), String> {
    let (mut used, mut requested, mut count) = (0_i64, 0_i64, 0_i64);
    for (name, sample) in samples {
        // A pod that is no more, or not selected.
        let Some(request) = requests.get(name) else { continue };
        used = used.saturating_add(sample.value);
        requested = requested.saturating_add(*request);
        count += 1;
    }
    if requested == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let percent = i32::try_from(used.saturating_mul(100) / requested).unwrap_or(i32::MAX);
    Ok((f64::from(percent) / f64::from(target), percent, used / count))
}

/// What the pods request of a resource, in thousandths.
fn requests(
    pods: &[Arc<Pod>],
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, i64>, String> {
    let mut all = BTreeMap::new();
    for pod in pods {
        let name = owners::name(&pod.metadata);
        all.insert(name.to_owned(), request(pod, resource, container)?);
    }
    Ok(all)
}

fn request(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let milli = |text: &str| text.parse::<Quantity>().map(Quantity::milli_value).ok();
    let Some(spec) = &pod.spec else { return Ok(0) };
    let whole = spec.resources.as_ref().and_then(|whole| whole.requests.as_ref()?.get(resource));
    if let (Some(whole), None) = (whole, container) {
        return milli(&whole.0).ok_or_else(|| format!("invalid request {:?}", whole.0));
    }
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0_i64;
    for one in spec.containers.iter().chain(sidecars) {
        if container.is_some_and(|wanted| wanted != one.name) {
            continue;
        }
        let missing = || {
            let pod = owners::name(&pod.metadata);
            format!("missing request for {resource} in container {} of Pod {pod}", one.name)
        };
        let asked = of_container(one, resource).and_then(milli).ok_or_else(missing)?;
        sum = sum.saturating_add(asked);
    }
    Ok(sum)
}

fn of_container<'a>(container: &'a Container, resource: &str) -> Option<&'a str> {
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    requests.get(resource).map(|quantity| quantity.0.as_str())
}

/// As many replicas as bring one value, which all pods share, to `target`.
pub fn for_value(basis: &Basis<'_>, value: i64, target: i64) -> Result<Proposal, String> {
    let ratio = float(value) / float(target);
    let proposal = |replicas| Proposal { replicas, utilization: None, value };
    if basis.current == 0 {
        return Ok(proposal(ceil(ratio)));
    }
    if basis.tolerances.cover(ratio) {
        return Ok(proposal(basis.current));
    }
    if basis.pods.is_empty() {
        let why = "no pods returned by selector while calculating replica count";
        return Err(format!("unable to calculate ready pods: {why}"));
    }
    let ready = basis.pods.iter().filter(|pod| phase(pod) == "Running" && is_ready(pod)).count();
    Ok(proposal(ceil(ratio * float_of(ready))))
}

/// As many replicas as bring each one's share of a value to `target`; `observed` is how many there
/// are.
pub fn for_share(basis: &Basis<'_>, observed: i32, value: i64, target: i64) -> Proposal {
    let ratio = float(value) / (float(target) * f64::from(observed));
    let replicas =
        if basis.tolerances.cover(ratio) { observed } else { ceil(float(value) / float(target)) };
    let share = ceil(float(value) / f64::from(observed.max(1)));
    Proposal { replicas, utilization: None, value: i64::from(share) }
}

#[cfg(test)]
mod tests;
