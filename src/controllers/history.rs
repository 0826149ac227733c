//! The past templates of a DaemonSet or StatefulSet, as ControllerRevisions: what
//! `kubectl rollout history` shows and `undo` goes back to.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kontiki_api::client::{ApiType, Client};
use kontiki_api::informer::Informer;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use serde_json::{Value, json};

use super::claims::{self, Claim};
use super::own_writes::OwnWrites;
use super::owners::{self, ObjectKey};
use super::pod_control;
use super::runtime::{During, ReconcileError};

/// The label of pods that says which revision they are of.
pub const REVISION_HASH: &str = "controller-revision-hash";

/// The revisions of one controller's objects.
pub struct History {
    client: Client,
    revisions: Arc<Informer<ControllerRevision>>,
    own: OwnWrites<ObjectKey, ControllerRevision>,
}

/// What a new revision would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The template, as [`template_patch`] writes it.
    pub data: Value,
    /// The hash in its name.
    pub hash: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// How the template of now becomes a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It is the latest already: the one at that position.
    Keep(usize),
    /// It was one before: that becomes the latest, with a new number.
    Raise(usize, i64),
    /// It is new, with that number.
    Create(i64),
}

/// Decides, from the revisions there are.
pub fn choose(data: &Value, revisions: &[ControllerRevision]) -> Choice {
    let latest = revisions.iter().map(|revision| revision.revision).max().unwrap_or(0);
    let same = (0..revisions.len())
        .filter(|position| data_of(&revisions[*position]) == Some(data))
        .max_by_key(|position| revisions[*position].revision);
    match same {
        None => Choice::Create(latest + 1),
        Some(position) if revisions[position].revision == latest => Choice::Keep(position),
        Some(position) => Choice::Raise(position, latest + 1),
    }
}

fn data_of(revision: &ControllerRevision) -> Option<&Value> {
    revision.data.as_ref().map(|data| &data.0)
}

/// A template as a revision holds it: a patch that puts it into its owner.
///
/// # Panics
/// Never: a pod template is plain data.
pub fn template_patch(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("a pod template must serialize");
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// The template that a revision holds.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = data_of(revision)?.pointer("/spec/template")?;
    serde_json::from_value(template.clone()).ok()
}

/// The oldest revisions that are not in use and that a history of `limit` has no room for.
pub fn beyond_limit<'a>(
    revisions: impl IntoIterator<Item = &'a ControllerRevision>,
    limit: i32,
    is_in_use: impl Fn(&ControllerRevision) -> bool,
) -> Vec<&'a ControllerRevision> {
    let mut idle: Vec<&ControllerRevision> =
        revisions.into_iter().filter(|revision| !is_in_use(revision)).collect();
    idle.sort_by_key(|revision| revision.revision);
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.truncate(surplus);
    idle
}

impl History {
    /// Writes through `client`.
    pub fn new(client: Client, revisions: Arc<Informer<ControllerRevision>>) -> Self {
        let own = OwnWrites::new(Arc::clone(&revisions));
        Self { client, revisions, own }
    }

    /// Waits until the informer has seen what was written for `key`.
    pub async fn seen(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        self.own.seen(key).await
    }

    /// The owner's revisions by number, after adopting those that match it and letting go those
    /// that no longer do.
    pub async fn claim<K: ApiType>(
        &self,
        key: &ObjectKey,
        owner: &K,
        selector: &LabelSelector,
    ) -> Result<Vec<ControllerRevision>, ReconcileError> {
        let all = self.revisions.list_in(&key.namespace);
        let Claim { own, adopt, release } = claims::claim(owner.metadata(), selector, all);
        let mut revisions: Vec<ControllerRevision> =
            own.iter().map(|revision| ControllerRevision::clone(revision)).collect();
        if !adopt.is_empty() && pod_control::is_still_there(&self.client, owner).await? {
            let references = json!([owners::controller_reference(owner)]);
            for revision in &adopt {
                revisions.extend(self.set_owners(key, revision, &references).await?);
            }
        }
        let references = json!([{ "$patch": "delete", "uid": owner.metadata().uid }]);
        for revision in &release {
            self.set_owners(key, revision, &references).await?;
        }
        revisions.sort_by(|a, b| {
            a.revision
                .cmp(&b.revision)
                .then_with(|| owners::name(&a.metadata).cmp(owners::name(&b.metadata)))
        });
        Ok(revisions)
    }

    async fn set_owners(
        &self,
        key: &ObjectKey,
        revision: &ControllerRevision,
        references: &Value,
    ) -> Result<Option<ControllerRevision>, ReconcileError> {
        let patch = json!({
            "metadata": { "uid": revision.metadata.uid, "ownerReferences": references }
        });
        self.patch(key, revision, Patch::Strategic(patch)).await
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        revision: &ControllerRevision,
        patch: Patch,
    ) -> Result<Option<ControllerRevision>, ReconcileError> {
        let name = owners::name(&revision.metadata);
        match self
            .client
            .patch::<ControllerRevision>(&key.namespace, name, Part::Main, &patch)
            .await
        {
            Ok(revision) => {
                self.own.wrote(key, &revision);
                Ok(Some(revision))
            }
            Err(status) if status.is_not_found() || status.is_invalid() || status.is_conflict() => {
                Ok(None)
            }
            Err(status) => Err(status)
                .during(|| format!("changing controller revision {}/{name}", key.namespace)),
        }
    }

    /// Makes the template of now the latest of `revisions`. `None` where the name of the new
    /// revision is taken by another template of the same hash.
    pub async fn record<K: ApiType>(
        &self,
        key: &ObjectKey,
        owner: &K,
        draft: Draft,
        revisions: &mut Vec<ControllerRevision>,
    ) -> Result<Option<ControllerRevision>, ReconcileError> {
        match choose(&draft.data, revisions) {
            Choice::Keep(position) => Ok(Some(revisions[position].clone())),
            Choice::Raise(position, number) => {
                let old = revisions.remove(position);
                let patch = Patch::Merge(json!({ "revision": number }));
                let raised = self.patch(key, &old, patch).await?;
                let raised = raised.unwrap_or(ControllerRevision { revision: number, ..old });
                revisions.push(raised.clone());
                Ok(Some(raised))
            }
            Choice::Create(number) => {
                let created = self.create(key, owner, draft, number).await?;
                revisions.extend(created.clone());
                Ok(created)
            }
        }
    }

    async fn create<K: ApiType>(
        &self,
        key: &ObjectKey,
        owner: &K,
        draft: Draft,
        number: i64,
    ) -> Result<Option<ControllerRevision>, ReconcileError> {
        let name = format!("{}-{}", key.name, draft.hash);
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(key.namespace.clone()),
                labels: Some(draft.labels),
                annotations: draft.annotations,
                owner_references: Some(vec![owners::controller_reference(owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(draft.data)),
            revision: number,
        };
        let act = || format!("creating controller revision {}/{name}", key.namespace);
        match self.client.create(&revision).await {
            Ok(created) => {
                self.own.wrote(key, &created);
                Ok(Some(created))
            }
            Err(status) if status.is_already_exists() => {
                let existing = self
                    .client
                    .get::<ControllerRevision>(&key.namespace, &name)
                    .await
                    .during(act)?;
                let is_it = data_of(&existing) == data_of(&revision)
                    && owners::is_controlled_by(&existing.metadata, owners::uid(owner.metadata()));
                Ok(is_it.then_some(existing))
            }
            Err(status) => Err(status).during(act),
        }
    }

    /// Deletes revisions.
    pub async fn delete(
        &self,
        key: &ObjectKey,
        revisions: &[&ControllerRevision],
    ) -> Result<(), ReconcileError> {
        for revision in revisions {
            let name = owners::name(revision.metadata());
            let options = DeleteOptions::of_uid(owners::uid(&revision.metadata));
            match self.client.delete::<ControllerRevision>(&key.namespace, name, &options).await {
                Ok(deleted) => self.own.deleted(key, &deleted),
                Err(status) if status.is_not_found() || status.is_conflict() => {}
                Err(status) => {
                    return Err(status).during(|| {
                        format!("deleting controller revision {}/{name}", key.namespace)
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64, image: &str) -> ControllerRevision {
        ControllerRevision {
            metadata: ObjectMeta { name: Some(image.to_owned()), ..ObjectMeta::default() },
            data: Some(RawExtension(template_patch(&template(image)))),
            revision: number,
        }
    }

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(
            json!({ "spec": { "containers": [{ "name": "a", "image": image }] } }),
        )
        .unwrap()
    }

    #[test]
    fn a_template_is_kept_raised_or_created() {
        let all = [revision(1, "a"), revision(2, "b")];
        let choice = |image: &str| choose(&template_patch(&template(image)), &all);
        assert_eq!(choice("b"), Choice::Keep(1));
        assert_eq!(choice("a"), Choice::Raise(0, 3));
        assert_eq!(choice("c"), Choice::Create(3));
        assert_eq!(choose(&Value::Null, &[]), Choice::Create(1));
    }

    #[test]
    fn a_revision_gives_its_template_back() {
        assert_eq!(template_of(&revision(1, "a")), Some(template("a")));
    }

    #[test]
    fn the_oldest_idle_revisions_go_beyond_the_limit() {
        let all = [revision(3, "c"), revision(1, "a"), revision(2, "b"), revision(4, "d")];
        let names = |limit: i32, in_use: &str| -> Vec<String> {
            beyond_limit(&all, limit, |one| owners::name(&one.metadata) == in_use)
                .into_iter()
                .map(|one| owners::name(&one.metadata).to_owned())
                .collect()
        };
        assert_eq!(names(2, "d"), ["a"]);
        assert_eq!(names(1, "a"), ["b", "c"], "what is in use stays");
        assert!(names(10, "a").is_empty());
    }
}
