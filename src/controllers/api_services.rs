//! APIServices: one for every version of a group that this cluster serves itself, and whether the
//! servers of the others answer ([`availability`]).
//!
//! Those of the cluster's own versions bear a mark; they are put right and come back when deleted. An
//! APIService that somebody made is left alone, and so is one that names a Service: it decides by whom
//! its version is served - unless the version is one of Kubernetes' own, which are always served here
//! and have APIServices that say so. Groups that upstream does not have get none, so that what serves them
//! elsewhere is free to register itself.

pub mod availability;

use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::client::Client;
use kontiki_api::crd::names;
use kontiki_api::discovery::priority::{CUSTOM, Priority};
use kontiki_api::informer::Informer;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, Part};
use kontiki_api::resources::api_service::{KIND, is_remote};
use kontiki_api::resources::custom_resource_definition;
use serde_json::{Value, json};

use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// Marks the APIServices that are kept here.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// The mark of a version that is built in.
const ON_START: &str = "onstart";
/// The mark of a version that comes and goes with a definition.
const ALWAYS: &str = "true";

/// Registers the cluster's own versions.
pub struct Registration {
    client: Client,
    services: Arc<Informer<Object>>,
    definitions: Arc<Informer<Object>>,
}

/// The controller, ready to run. Its keys are names of APIServices.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Registration> {
    let services = context.informers.objects(&KIND);
    let definitions = context.informers.objects(&custom_resource_definition::KIND);
    let reconciler = Registration {
        client: context.client.clone(),
        services: Arc::clone(&services),
        definitions: Arc::clone(&definitions),
    };
    let built_in = built_in(&context.client);
    Controller::new("apiservice-registration", context, begin, reconciler)
        .watch(&services, |service| vec![service.name().to_owned()])
        .watch(&definitions, |definition| served(definition).map(|(name, ..)| name).collect())
        .feed_by(|queue, _| async move {
            for name in built_in {
                queue.add(name).await;
            }
        })
}

/// The names of the APIServices of all built-in versions that have one.
fn built_in(client: &Client) -> Vec<String> {
    let kinds = client.kinds().into_iter();
    let named = kinds.filter(|kind| kind.strategy.definition().is_none());
    let has_one = |group, version| Priority::built_in(group, version).is_some();
    let of = named.filter(|kind| has_one(kind.group, kind.version));
    let mut names: Vec<String> = of.map(|kind| name(kind.group, kind.version)).collect();
    names.dedup();
    names
}

fn name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

/// The APIServices of a definition: name, group, version.
fn served(definition: &Object) -> impl Iterator<Item = (String, &str, &str)> {
    let group = definition.str_at("/spec/group");
    let versions = definition.at("/spec/versions").and_then(Value::as_array);
    let served = versions.into_iter().flatten().filter(|version| version["served"] == true);
    let versions = served.filter_map(|version| version["name"].as_str());
    versions.map(move |version| (name(group, version), group, version))
}

#[async_trait]
impl Reconcile for Registration {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        let found = self.services.get("", name);
        let done = match plan(self.wanted(name), found.as_deref()) {
            Step::Nothing => Ok(()),
            Step::Create(object) => self.client.create_object(&KIND, object).await.map(drop),
            Step::Update(object) => {
                self.client.update_object(&KIND, Part::Main, object).await.map(drop)
            }
            Step::Delete(uid) => {
                let options = DeleteOptions::of_uid(&uid);
                self.client.delete_object(&KIND, "", name, &options).await.map(drop)
            }
        };
        match done {
            // The change that was in the way comes by the watch.
            Err(status) if status.is_conflict() || status.is_already_exists() => {}
            Err(status) if status.is_not_found() => {}
            done => done.during(|| format!("registering {name}"))?,
        }
        Ok(Next::OnChange)
    }
}

impl Registration {
    /// The APIService of that name, where the cluster serves the version itself.
    fn wanted(&self, name: &str) -> Option<Object> {
        let (version, group) = name.split_once('.')?;
        let kinds = self.client.kinds().into_iter();
        let mut built_in = kinds.filter(|kind| kind.strategy.definition().is_none());
        if built_in.any(|kind| (kind.group, kind.version) == (group, version)) {
            let priority = Priority::built_in(group, version)?;
            return Some(registered(group, version, priority, ON_START));
        }
        let definitions = self.definitions.list();
        let established = definitions.iter().filter(|one| names::is_true(one, "Established"));
        let mut served = established.flat_map(|one| served(one).map(|(name, ..)| name));
        served.any(|one| one == name).then(|| registered(group, version, CUSTOM, ALWAYS))
    }
}

fn registered(group: &str, version: &str, priority: Priority, mark: &str) -> Object {
    let mut object = Object::empty(&KIND.api_version(), KIND.kind);
    object.set_meta("name", name(group, version));
    object.set_meta("labels", json!({ AUTOMANAGED: mark }));
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": priority.group,
        "versionPriority": priority.version,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    object.set(&["spec"], spec);
    object
}

#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create(Object),
    Update(Object),
    /// The one of that uid.
    Delete(String),
}

/// What has to be done for an APIService to be as it should.
fn plan(wanted: Option<Object>, found: Option<&Object>) -> Step {
    let (wanted, found) = match (wanted, found) {
        (None, None) => return Step::Nothing,
        (Some(wanted), None) => return Step::Create(wanted),
        (wanted, Some(found)) => (wanted, found),
    };
    let is_ours = found.label(AUTOMANAGED).is_some_and(|mark| [ON_START, ALWAYS].contains(&mark));
    let is_built_in = wanted.as_ref().and_then(|own| own.label(AUTOMANAGED)) == Some(ON_START);
    let is_left_alone = if is_remote(found) { !is_built_in } else { !is_ours };
    if is_left_alone || found.is_terminating() {
        return Step::Nothing;
    }
    let Some(wanted) = wanted else { return Step::Delete(found.uid().to_owned()) };
    let mark = wanted.label(AUTOMANAGED).unwrap_or_default();
    if found.at("/spec") == wanted.at("/spec") && found.label(AUTOMANAGED) == Some(mark) {
        return Step::Nothing;
    }
    let mut right = found.clone();
    right.set(&["metadata", "labels", AUTOMANAGED], mark);
    right.set(&["spec"], wanted.at("/spec").cloned().unwrap_or_default());
    Step::Update(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps() -> Object {
        registered("apps", "v1", Priority { group: 17_800, version: 15 }, ON_START)
    }

    #[test]
    fn what_is_missing_is_made_and_what_was_changed_is_put_right() {
        assert_eq!(plan(Some(apps()), None), Step::Create(apps()));
        assert_eq!(plan(Some(apps()), Some(&apps())), Step::Nothing);
        let mut changed = apps();
        changed.set(&["spec", "versionPriority"], 1);
        assert_eq!(plan(Some(apps()), Some(&changed)), Step::Update(apps()));
    }

    #[test]
    fn what_is_served_no_more_goes_if_it_was_made_here() {
        let mut found = apps();
        found.set_meta("uid", "u");
        assert_eq!(plan(None, Some(&found)), Step::Delete("u".into()));
        found.set_meta("labels", json!({}));
        assert_eq!(plan(None, Some(&found)), Step::Nothing);
    }

    #[test]
    fn a_built_in_version_that_is_led_elsewhere_comes_home() {
        let mut found = apps();
        found.set(&["spec", "service"], json!({ "namespace": "a", "name": "b", "port": 443 }));
        assert_eq!(plan(Some(apps()), Some(&found)), Step::Update(apps()));
        found.set_meta("labels", json!({}));
        assert_eq!(plan(Some(apps()), Some(&found)), Step::Update(apps()));
    }

    #[test]
    fn who_leads_a_version_elsewhere_or_made_it_alone_is_left_alone() {
        let custom = || registered("example.com", "v1", CUSTOM, ALWAYS);
        let mut found = custom();
        found.set(&["spec", "service"], json!({ "namespace": "a", "name": "b", "port": 443 }));
        assert_eq!(plan(Some(custom()), Some(&found)), Step::Nothing);
        assert_eq!(plan(None, Some(&found)), Step::Nothing);
        let mut made = apps();
        made.set_meta("labels", json!({}));
        made.set(&["spec", "versionPriority"], 1);
        assert_eq!(plan(Some(apps()), Some(&made)), Step::Nothing);
    }
}
