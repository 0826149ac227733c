//! What all metrics of an autoscaler ask for together.

use k8s_openapi::api::autoscaling::v2::MetricStatus;

use super::conditions::Conditions;
use super::evaluate::{Evaluated, Failed};

/// What all metrics together ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// How many replicas, and by which metric; none where too little is known.
    pub replicas: Option<(i32, String)>,
    /// What the status says of each that could be measured.
    pub statuses: Vec<MetricStatus>,
    /// What went wrong, where something did.
    pub error: Option<String>,
}

/// The greatest number that a metric asks for. Where one could not be measured the scale may grow by
/// the others, but not shrink.
pub fn together(
    results: Vec<Result<Evaluated, Failed>>,
    current: i32,
    conditions: &mut Conditions,
) -> Asked {
    let all = results.len();
    let (mut found, mut failures): (Vec<Evaluated>, Vec<Failed>) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(one) => found.push(one),
            Err(failed) => failures.push(failed),
        }
    }
    let error = failures.first().map(|first| {
        let prefix =
            if first.prefix.is_empty() { String::new() } else { format!("{}: ", first.prefix) };
        format!(
            "invalid metrics ({} invalid out of {all}), first error is: {prefix}{}",
            failures.len(),
            first.message
        )
    });
    let mut greatest: Option<(i32, String)> = None;
    for one in &found {
        if greatest.as_ref().is_none_or(|(replicas, _)| one.replicas > *replicas) {
            greatest = Some((one.replicas, one.name.clone()));
        }
    }
    let statuses = found.into_iter().map(|one| one.status).collect();
    let replicas = greatest.filter(|(replicas, _)| failures.is_empty() || *replicas >= current);
    match (&replicas, failures.first()) {
        (Some((_, metric)), _) => {
            let what = "the HPA was able to successfully calculate a replica count from";
            conditions.active("ValidMetricFound", format!("{what} {metric}"));
        }
        (None, Some(first)) => {
            let what = "the HPA was unable to compute the replica count";
            conditions.inactive(first.reason, format!("{what}: {}", first.message));
        }
        (None, None) => {}
    }
    Asked { replicas, statuses, error }
}
