//! How far and how fast a scale may follow what the metrics ask for: bounds, stabilization windows
//! and policies.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// How long the highest recommendation holds, where nothing is said.
const DOWN_WINDOW_SECONDS: i32 = 300;
/// Without a behaviour a scale may double, or grow to this.
const UP_FACTOR: i32 = 2;
const UP_LEAST: i32 = 4;

/// What was recommended at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recommendation {
    /// So many replicas.
    pub replicas: i32,
    /// When.
    pub at: Timestamp,
}

/// By how much a scale was changed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// By so many replicas; down is negative.
    pub change: i32,
    /// When.
    pub at: Timestamp,
}

/// What was recommended and done before: in the memory of who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    recommendations: Vec<Recommendation>,
    steps: Vec<Step>,
}

/// Bounds and rules.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The fewest replicas.
    pub least: i32,
    /// The most.
    pub most: i32,
    /// Rules for the way up and down.
    pub behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
}

/// Why a number is what it is: reason and message of a condition.
pub type Why = (&'static str, &'static str);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// So many replicas.
    pub replicas: i32,
    /// Whether and why older recommendations hold it: `AbleToScale`.
    pub stabilized: Why,
    /// Whether and why a bound cut it: `ScalingLimited`.
    pub limited: Option<Why>,
    /// What is said where none did.
    pub within: Why,
}

const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: Why = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent \
     recommendation",
);
const UP_STABILIZED: Why = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Why =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Why =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: Why =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Why = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

impl History {
    /// Begins with what there is, so that a new leader does not scale down at once.
    pub fn begin(&mut self, current: i32, at: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push(Recommendation { replicas: current, at });
        }
    }

    /// Notes a change that was made.
    pub fn scaled(&mut self, from: i32, to: i32, at: Timestamp) {
        self.steps.push(Step { change: to - from, at });
    }

    /// Forgets what no window reaches.
    fn forget(&mut self, rules: &Rules<'_>, now: Timestamp) {
        let of = |rules: Option<&HPAScalingRules>| {
            let policies = rules.and_then(|rules| rules.policies.as_ref()).into_iter().flatten();
            let periods = policies.map(|policy| policy.period_seconds);
            let window = rules.and_then(|rules| rules.stabilization_window_seconds);
            periods.chain(window).max().unwrap_or(0)
        };
        let behavior = rules.behavior;
        let up = of(behavior.and_then(|behavior| behavior.scale_up.as_ref()));
        let down = of(behavior.and_then(|behavior| behavior.scale_down.as_ref()));
        let longest = SignedDuration::from_secs(up.max(down).max(DOWN_WINDOW_SECONDS).into());
        let oldest = now - longest;
        self.recommendations.retain(|one| one.at >= oldest);
        self.steps.retain(|one| one.at >= oldest);
    }

    /// How many replicas were added, and how many taken away, in the last seconds.
    fn changes(&self, seconds: i32, now: Timestamp) -> (i32, i32) {
        let oldest = now - SignedDuration::from_secs(seconds.into());
        let recent = self.steps.iter().filter(|step| step.at > oldest).map(|step| step.change);
        recent.fold((0, 0), |(added, taken), change| {
            (added + change.max(0), taken + (-change).max(0))
        })
    }
}

/// Decides how many replicas there shall be, where there are `current` and the metrics ask for
/// `desired`; notes the recommendation.
pub fn plan(
    current: i32,
    desired: i32,
    rules: &Rules<'_>,
    history: &mut History,
    now: Timestamp,
) -> Decision {
    history.forget(rules, now);
    let (replicas, stabilized) = stabilize(current, desired, rules, history, now);
    history.recommendations.push(Recommendation { replicas: desired, at: now });
    let (bounded, why) = match rules.behavior {
        None => bound(current, replicas, rules),
        Some(behavior) => bound_by_policies(current, replicas, rules, behavior, history, now),
    };
    let limited = (bounded != replicas).then_some(why);
    Decision { replicas: bounded, stabilized, limited, within: WITHIN }
}

fn stabilize(
    current: i32,
    desired: i32,
    rules: &Rules<'_>,
    history: &History,
    now: Timestamp,
) -> (i32, Why) {
    let since = |seconds: i32| {
        let oldest = now - SignedDuration::from_secs(seconds.into());
        history.recommendations.iter().filter(move |one| one.at > oldest).map(|one| one.replicas)
    };
    let Some(behavior) = rules.behavior else {
        let highest = since(DOWN_WINDOW_SECONDS).fold(desired, i32::max);
        return (highest, if highest == desired { READY } else { DOWN_STABILIZED });
    };
    let window = |rules: Option<&HPAScalingRules>, usual: i32| {
        rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(usual)
    };
    let lowest = since(window(behavior.scale_up.as_ref(), 0)).fold(desired, i32::min);
    let down = window(behavior.scale_down.as_ref(), DOWN_WINDOW_SECONDS);
    let highest = since(down).fold(desired, i32::max);
    let stabilized = current.max(lowest).min(highest);
    let why = if stabilized == desired {
        READY
    } else if desired >= current {
        UP_STABILIZED
    } else {
        DOWN_STABILIZED
    };
    (stabilized, why)
}

fn bound(current: i32, desired: i32, rules: &Rules<'_>) -> (i32, Why) {
    let fastest = current.saturating_mul(UP_FACTOR).max(UP_LEAST);
    if desired < rules.least {
        (rules.least, TOO_FEW)
    } else if desired > fastest.min(rules.most) {
        (fastest.min(rules.most), if fastest < rules.most { UP_LIMIT } else { TOO_MANY })
    } else {
        (desired, WITHIN)
    }
}

fn bound_by_policies(
    current: i32,
    desired: i32,
    rules: &Rules<'_>,
    behavior: &HorizontalPodAutoscalerBehavior,
    history: &History,
    now: Timestamp,
) -> (i32, Why) {
    if desired > current {
        let fastest =
            limit(current, behavior.scale_up.as_ref(), Way::Up, history, now).max(current);
        let most = rules.most.min(fastest);
        if desired > most {
            return (most, if rules.most > fastest { UP_LIMIT } else { TOO_MANY });
        }
    } else if desired < current {
        let fastest =
            limit(current, behavior.scale_down.as_ref(), Way::Down, history, now).min(current);
        let least = rules.least.max(fastest);
        if desired < least {
            return (least, if rules.least < fastest { DOWN_LIMIT } else { TOO_FEW });
        }
    }
    (desired, WITHIN)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// How far the policies let a scale go now.
fn limit(
    current: i32,
    rules: Option<&HPAScalingRules>,
    way: Way,
    history: &History,
    now: Timestamp,
) -> i32 {
    let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let policies = rules.and_then(|rules| rules.policies.as_ref()).into_iter().flatten();
    let limits = policies.map(|policy| {
        let (added, taken) = history.changes(policy.period_seconds, now);
        let began = current - added + taken;
        match (way, policy.type_.as_str()) {
            (Way::Up, "Pods") => began.saturating_add(policy.value),
            (Way::Up, _) => part(began, 100 + i64::from(policy.value), Rounding::Up),
            (Way::Down, "Pods") => began.saturating_sub(policy.value),
            (Way::Down, _) => part(began, 100 - i64::from(policy.value), Rounding::Down),
        }
    });
    // The greatest change is the highest number on the way up and the lowest on the way down.
    let furthest = match (way, select) {
        (Way::Up, "Min") | (Way::Down, "Max") => limits.min(),
        _ => limits.max(),
    };
    furthest.unwrap_or(current)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Up,
    Down,
}

/// So many percent of a number.
fn part(of: i32, percent: i64, rounding: Rounding) -> i32 {
    let product = i64::from(of) * percent;
    let rounded = match rounding {
        Rounding::Up => -((-product).div_euclid(100)),
        Rounding::Down => product / 100,
    };
    i32::try_from(rounded).unwrap_or(if rounded > 0 { i32::MAX } else { 0 })
}

#[cfg(test)]
mod tests;
