//! The claimed order of writes: complete, each once, and in agreement with time and bases.

use std::collections::HashMap;

use super::{Outcome, Promise, Sorted, Violation};

pub(super) fn check(sorted: &Sorted<'_>, violations: &mut Vec<Violation>) {
    effects(sorted, violations);
    bases(sorted, violations);
    times(sorted, violations);
}

/// Every value that took effect was attempted, not refused, and took effect once.
fn effects(sorted: &Sorted<'_>, violations: &mut Vec<Violation>) {
    let mut first: HashMap<&str, u64> = HashMap::new();
    for (revision, item) in &sorted.order {
        let mut report = |promise, detail| violations.push(Violation { promise, detail });
        match sorted.attempts.get(item.value.as_str()) {
            None if !sorted.initial.contains_key(item.value.as_str()) => report(
                Promise::NothingMadeUp,
                format!(
                    "revision {revision} holds {}={}, which nobody wrote",
                    item.key, item.value
                ),
            ),
            Some(attempt) if attempt.key != item.key => report(
                Promise::NothingMadeUp,
                format!("{} was written to {} and is at {}", item.value, attempt.key, item.key),
            ),
            Some(attempt) => {
                if let Outcome::Refused { reason } = attempt.outcome {
                    let (key, value) = (&item.key, &item.value);
                    let detail =
                        format!("{key}={value} is at {revision}, though refused: {reason}");
                    report(Promise::NoRefusedEffect, detail);
                }
            }
            None => {}
        }
        if let Some(earlier) = first.insert(&item.value, *revision) {
            report(
                Promise::AtMostOnce,
                format!("{}={} took effect at {earlier} and at {revision}", item.key, item.value),
            );
        }
    }
}

/// A write that was based on a revision follows it with nothing of its key in between.
fn bases(sorted: &Sorted<'_>, violations: &mut Vec<Violation>) {
    let mut latest: HashMap<&str, u64> = HashMap::new();
    for (revision, item) in &sorted.order {
        let before = latest.insert(&item.key, *revision);
        let Some(attempt) = sorted.attempts.get(item.value.as_str()) else { continue };
        // A base that nobody showed us is one from before the run.
        let Some(before) = before else { continue };
        if before != attempt.base {
            violations.push(Violation {
                promise: Promise::CompareAndSet,
                detail: format!(
                    "{}={} was to follow revision {} and took effect at {revision}, after {before}",
                    item.key, item.value, attempt.base
                ),
            });
        }
    }
}

/// A write takes effect after its request: later than all that was proved before it.
fn times(sorted: &Sorted<'_>, violations: &mut Vec<Violation>) {
    for (revision, item) in &sorted.order {
        let Some(attempt) = sorted.attempts.get(item.value.as_str()) else { continue };
        let proved = sorted.evidence.store_before(attempt.span.start_us);
        if *revision <= proved {
            violations.push(Violation {
                promise: Promise::NoLostWrite,
                detail: format!(
                    "{}={} took revision {revision}, though the store was at {proved} before the \
                     request was made",
                    item.key, item.value
                ),
            });
        }
    }
}
