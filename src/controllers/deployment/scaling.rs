//! The arithmetic of a rollout: how many pods each ReplicaSet shall have next. Numbers in, numbers
//! out; `spec` is what a ReplicaSet was told, `available` what its status says it has.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::bounds::Bounds;
use super::revision;

/// A ReplicaSet's size as it was told.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().map_or(0, |spec| spec.replicas.unwrap_or(1))
}

/// How many of its pods are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// The sum of some number over ReplicaSets.
pub fn total<'a>(
    sets: impl IntoIterator<Item = &'a ReplicaSet>,
    of: fn(&ReplicaSet) -> i32,
) -> i32 {
    sets.into_iter().map(of).fold(0, i32::saturating_add)
}

/// The size that the new ReplicaSet may have, where it is `current` and all together are `all`.
pub fn new_size(bounds: Bounds, rolling: bool, current: i32, all: i32) -> i32 {
    if !rolling {
        return bounds.replicas;
    }
    if all >= bounds.most() {
        return current;
    }
    current + (bounds.most() - all).min(bounds.replicas - current)
}

/// The sizes of the old ReplicaSets (given by age) after a step: first those pods go that were not
/// available anyway, then as many as stay above the least that must be available.
pub fn shrink_old(bounds: Bounds, old: &[ReplicaSet], new: Option<&ReplicaSet>) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(size).collect();
    let all = total(old.iter().chain(new), size);
    let new_unavailable = new.map_or(0, |new| size(new) - available(new));
    let removable = all - bounds.least() - new_unavailable;
    if removable <= 0 {
        return sizes;
    }
    let mut left = removable;
    for (set, size) in old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(set)).clamp(0, left);
        *size -= unhealthy;
        left -= unhealthy;
    }
    let mut left = total(old.iter().chain(new), available) - bounds.least();
    for size in &mut sizes {
        let step = (*size).min(left).max(0);
        *size -= step;
        left -= step;
    }
    sizes
}

/// The sizes of the ReplicaSets in use after the Deployment was resized in the middle of a rollout:
/// each grows or shrinks by its share, so that the rollout's risk stays what it was.
pub fn in_proportion(bounds: Bounds, fallback_max: i32, sets: &[&ReplicaSet]) -> Vec<i32> {
    let mut sizes: Vec<i32> = sets.iter().map(|set| size(set)).collect();
    let allowed = if bounds.replicas > 0 { bounds.most() } else { 0 };
    let change = allowed - sizes.iter().sum::<i32>();
    let mut order: Vec<usize> = (0..sets.len()).collect();
    order.sort_by(|a, b| {
        let younger_first = revision::by_age(sets[*b], sets[*a]);
        let by_age = if change > 0 { younger_first } else { younger_first.reverse() };
        sizes[*b].cmp(&sizes[*a]).then(by_age)
    });
    let mut given = 0;
    for position in &order {
        let share = share(bounds, fallback_max, sets[*position], change, given);
        sizes[*position] += share;
        given += share;
    }
    if let Some(largest) = order.first() {
        // What rounding left over.
        sizes[*largest] = (sizes[*largest] + change - given).max(0);
    }
    sizes
}

fn share(bounds: Bounds, fallback_max: i32, set: &ReplicaSet, change: i32, given: i32) -> i32 {
    if size(set) == 0 || change == 0 || change == given {
        return 0;
    }
    let left = change - given;
    let fraction = fraction(bounds, fallback_max, set);
    if change > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// By how much a ReplicaSet that was a part of the Deployment's old size differs from being the
/// same part of the new one.
fn fraction(bounds: Bounds, fallback_max: i32, set: &ReplicaSet) -> i32 {
    let own = size(set);
    if bounds.replicas == 0 {
        return -own;
    }
    let old_max = revision::number(&set.metadata, revision::MAX).unwrap_or(fallback_max);
    if old_max <= 0 {
        return 0;
    }
    let (own, most, old_max) = (i64::from(own), i64::from(bounds.most()), i64::from(old_max));
    // Rounded to the nearest, half up.
    let scaled = (2 * own * most + old_max) / (2 * old_max);
    i32::try_from(scaled - own).unwrap_or(0)
}
