//! The rolling update of a DaemonSet: which pods of old revisions make room, or get a newer one
//! beside them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::placement::Wish;
use super::plan::{Field, Plan, Spot, Update, update};
use crate::controllers::pods;

/// Adds to the plan what the update strategy allows.
pub(super) fn roll(field: &Field<'_>, plan: &mut Plan) {
    match update(&field.view.set, field.wanted()) {
        Update::OnDelete => {}
        Update::Unavailable(most) => replace(field, most, plan),
        Update::Surge(most) => surge(field, most, plan),
    }
}

/// A node's pod of the latest revision, and the one of another.
struct Pair<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
}

/// `None` where a node has more than one of either; managing it comes first.
fn pair<'a>(field: &Field<'_>, spot: &Spot<'a>) -> Option<Pair<'a>> {
    let mut pair = Pair { new: None, old: None };
    for pod in spot.pods.iter().filter(|pod| !pods::is_terminating(pod)) {
        let place = if field.is_updated(pod) { &mut pair.new } else { &mut pair.old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some(pair)
}

/// The nodes that count: those that shall have a pod, and those that have one.
fn counted<'a, 'b>(field: &'b Field<'a>) -> impl Iterator<Item = (&'a str, &'b Spot<'a>)> {
    field
        .spots
        .iter()
        .filter(|(_, spot)| spot.wish == Some(Wish::Run) || !spot.pods.is_empty())
        .map(|(node, spot)| (*node, spot))
}

/// Old pods that do not serve go at once; those that do, as many as may be missing.
fn replace(field: &Field<'_>, most_unavailable: usize, plan: &mut Plan) {
    let mut unavailable = 0;
    let (mut broken, mut serving) = (Vec::new(), Vec::new());
    for (_, spot) in counted(field) {
        match pair(field, spot) {
            Some(Pair { new: Some(new), old: None }) => {
                unavailable += usize::from(!field.is_available(new));
            }
            Some(Pair { new: None, old: Some(old) }) if field.is_available(old) => {
                serving.push(Arc::clone(old));
            }
            Some(Pair { new: None, old: Some(old) }) => {
                unavailable += 1;
                broken.push(Arc::clone(old));
            }
            // None at all, or two: that is for managing, and the node is without until then.
            _ => unavailable += 1,
        }
    }
    plan.delete.extend(broken);
    plan.delete.extend(serving.into_iter().take(most_unavailable.saturating_sub(unavailable)));
}

/// A new pod beside an old one that does not serve at once; beside those that do, on as many nodes
/// as may have two. An old pod goes when the new one serves.
fn surge(field: &Field<'_>, most: usize, plan: &mut Plan) {
    let mut surging = 0;
    let (mut broken, mut serving) = (Vec::new(), Vec::new());
    for (node, spot) in counted(field) {
        let Some(pair) = pair(field, spot) else {
            surging += 1;
            continue;
        };
        if spot.wish != Some(Wish::Run) {
            continue;
        }
        match (pair.old, pair.new) {
            (None, _) => {}
            (Some(old), None) if field.is_available(old) => serving.push(node.to_owned()),
            (Some(_), None) => broken.push(node.to_owned()),
            (Some(old), Some(new)) if field.is_available(new) => plan.delete.push(Arc::clone(old)),
            (Some(_), Some(_)) => surging += 1,
        }
    }
    plan.create.extend(broken);
    plan.create.extend(serving.into_iter().take(most.saturating_sub(surging)));
}
