//! The ReplicaSets of a Deployment as its history: which one is new, which revision each has, and
//! the annotations that `kubectl rollout history` and `undo` read.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::bounds::Bounds;
use crate::controllers::owners;

/// The label that tells the pods of one revision from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Which revision a ReplicaSet, or the Deployment now, is.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Which revisions a ReplicaSet was before it was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the ReplicaSet was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with its surge.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// The annotations of a Deployment that its ReplicaSets do not take over.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// The longest list of past revisions kept in the annotation, in characters.
const REVISION_HISTORY_MAX_CHARS: usize = 2000;

/// A letter for each of a hash's digits: no vowels and none that look alike, so that no word and
/// no mistake comes out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short hash of a pod template, the same on every server and in every version; `collisions` is
/// counted up when a name made of it is taken.
///
/// # Panics
/// Never: a pod template is plain data.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Maps in the types are sorted, so equal templates have equal text.
    let mut bytes = serde_json::to_vec(template).expect("a pod template must serialize");
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    let digits = fnv1a(&bytes).to_string();
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Whether two templates make the same pods.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    let meta = template.metadata.take().unwrap_or_default();
    template.metadata = Some(ObjectMeta {
        labels: meta.labels.filter(|labels| !labels.is_empty()),
        annotations: meta.annotations.filter(|annotations| !annotations.is_empty()),
        creation_timestamp: None,
        ..meta
    });
    template
}

/// The position of the ReplicaSet that has the Deployment's template: the oldest, where there are more.
pub fn position_of_new(deployment: &Deployment, sets: &[ReplicaSet]) -> Option<usize> {
    let template = &deployment.spec.as_ref()?.template;
    let has_template = |set: &ReplicaSet| {
        set.spec
            .as_ref()
            .and_then(|spec| spec.template.as_ref())
            .is_some_and(|own| same_template(own, template))
    };
    (0..sets.len())
        .filter(|position| has_template(&sets[*position]))
        .min_by(|a, b| by_age(&sets[*a], &sets[*b]))
}

/// The order of creation, then of names.
pub fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    created(a)
        .cmp(&created(b))
        .then_with(|| owners::name(&a.metadata).cmp(owners::name(&b.metadata)))
}

/// The revision of a ReplicaSet or Deployment; 0 where it has none.
pub fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// A number in an annotation.
pub fn number(meta: &ObjectMeta, name: &str) -> Option<i32> {
    annotation(meta, name)?.parse().ok()
}

/// The ReplicaSet to create for the Deployment's template.
pub fn new_set(deployment: &Deployment, replicas: i32, next_revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let mut labels = template.metadata.get_or_insert_default().labels.take().unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    template.metadata.get_or_insert_default().labels = Some(labels.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owners::name(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owners::controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector: with_hash(spec.selector, hash),
            template: Some(template),
        }),
        status: None,
    };
    annotate_as_new(deployment, &mut set, next_revision);
    note_size(&mut set, Bounds::of(deployment));
    set
}

fn with_hash(mut selector: LabelSelector, hash: String) -> LabelSelector {
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash);
    selector
}

/// Gives the new ReplicaSet the Deployment's annotations and, where it is older than
/// `next_revision`, that revision. Whether anything changed.
pub fn annotate_as_new(deployment: &Deployment, set: &mut ReplicaSet, next_revision: i64) -> bool {
    let before = set.metadata.annotations.clone();
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&name.as_str()) {
            annotations.insert(name.clone(), value.clone());
        }
    }
    let old: Option<i64> = annotations.get(REVISION).and_then(|text| text.parse().ok());
    if old.unwrap_or(0) < next_revision {
        annotations.insert(REVISION.to_owned(), next_revision.to_string());
        if let Some(old) = old {
            append_history(annotations, old);
        }
    }
    set.metadata.annotations != before
}

fn append_history(annotations: &mut BTreeMap<String, String>, old: i64) {
    let history = annotations.remove(REVISION_HISTORY).unwrap_or_default();
    let mut revisions: Vec<String> =
        history.split(',').filter(|revision| !revision.is_empty()).map(str::to_owned).collect();
    revisions.push(old.to_string());
    while revisions.iter().map(|revision| revision.len() + 1).sum::<usize>()
        > REVISION_HISTORY_MAX_CHARS
    {
        revisions.remove(0);
    }
    annotations.insert(REVISION_HISTORY.to_owned(), revisions.join(","));
}

/// Notes the Deployment's size at the ReplicaSet; whether that is new to it.
pub fn note_size(set: &mut ReplicaSet, bounds: Bounds) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let desired = bounds.replicas.to_string();
    let max = bounds.most().to_string();
    let changed = annotations.get(DESIRED) != Some(&desired) || annotations.get(MAX) != Some(&max);
    annotations.insert(DESIRED.to_owned(), desired);
    annotations.insert(MAX.to_owned(), max);
    changed
}

/// The old ReplicaSets that the history has no room for: empty ones, by revision.
pub fn beyond_history<'a>(deployment: &Deployment, old: &[&'a ReplicaSet]) -> Vec<&'a ReplicaSet> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let mut alive: Vec<&ReplicaSet> =
        old.iter().copied().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by(|a, b| {
        revision(&a.metadata).cmp(&revision(&b.metadata)).then_with(|| by_age(a, b))
    });
    alive.into_iter().take(surplus).filter(|set| is_empty(set)).collect()
}

fn is_empty(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    status.replicas == 0
        && set.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
        && set.metadata.generation <= status.observed_generation
}
