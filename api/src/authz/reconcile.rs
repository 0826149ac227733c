//! Keeps the default roles and bindings as they must be: what is missing is created, what somebody
//! took away comes back, what somebody added stays. An object with the annotation
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::{Value, json};

use super::aggregate::aggregate;
use super::covers;
use super::defaults::{self, Wanted};
use crate::client::Client;
use crate::object::Object;
use crate::registry::options::{DeleteOptions, Part};
use crate::status::Status;

/// How many objects are looked at side by side.
const AT_ONCE: usize = 32;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What must be done with one object.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Update(Object),
    /// It gives another role: bindings are for life.
    Replace,
}

/// Brings all default roles and bindings up to date, through a client that may do everything.
pub(crate) async fn run(client: &Client) -> Result<(), Status> {
    let (mut roles, bindings): (Vec<Wanted>, Vec<Wanted>) =
        defaults::all().iter().cloned().partition(|wanted| wanted.kind.plural.ends_with("roles"));
    fill_aggregates(&mut roles);
    for wanted in [roles, bindings] {
        futures_util::stream::iter(wanted.into_iter().map(|wanted| ensure(client, wanted)))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

/// Gives the aggregates among the defaults their first rules, so that they count before the
/// controller that keeps them has run.
fn fill_aggregates(roles: &mut [Wanted]) {
    let mut typed: Vec<ClusterRole> = roles
        .iter()
        .filter(|wanted| wanted.kind.plural == "clusterroles")
        .filter_map(|wanted| wanted.object.to_typed().ok())
        .collect();
    // `admin` is made of `edit`, and that of `view`: as many rounds as they are deep.
    for _ in 0..3 {
        let all = typed.clone();
        for role in &mut typed {
            if let Some(rules) = aggregate(role, all.iter()) {
                role.rules = Some(rules);
            }
        }
    }
    for role in typed.iter().filter(|role| role.aggregation_rule.is_some()) {
        let mut found = roles.iter_mut().filter(|wanted| wanted.kind.plural == "clusterroles");
        let name = role.metadata.name.as_deref().unwrap_or_default();
        if let Some(wanted) = found.find(|wanted| wanted.object.name() == name) {
            wanted.object.set(&["rules"], json!(role.rules));
        }
    }
}

async fn ensure(client: &Client, wanted: Wanted) -> Result<(), Status> {
    let Wanted { kind, object } = wanted;
    let (namespace, name) = (object.namespace(), object.name());
    let found = match client.get_object(kind, namespace, name).await {
        Err(status) if status.is_not_found() => return create(client, kind, object).await,
        found => found?,
    };
    match plan(&object, &found) {
        Step::Nothing => Ok(()),
        Step::Update(updated) => {
            client.update_object(kind, Part::Main, updated).await.map(drop).or_else(lost_race)
        }
        Step::Replace => {
            client.delete_object(kind, namespace, name, &DeleteOptions::default()).await?;
            create(client, kind, object).await
        }
    }
}

async fn create(
    client: &Client,
    kind: &'static crate::registry::strategy::Kind,
    object: Object,
) -> Result<(), Status> {
    client.create_object(kind, object).await.map(drop).or_else(lost_race)
}

/// Whoever was faster wanted the same, or is a user: the next look sees what it is.
fn lost_race(status: Status) -> Result<(), Status> {
    let is_lost = status.is_already_exists() || status.is_conflict() || status.is_not_found();
    if is_lost { Ok(()) } else { Err(status) }
}

fn plan(wanted: &Object, found: &Object) -> Step {
    if found.annotation(AUTOUPDATE) == Some("false") {
        return Step::Nothing;
    }
    if wanted.at("/roleRef").is_some() {
        if wanted.at("/roleRef") != found.at("/roleRef") {
            return Step::Replace;
        }
        return step(found, |new| add_missing(wanted, new, "subjects"));
    }
    step(found, |new| {
        add_labels(wanted, new);
        if wanted.at("/aggregationRule").is_some() {
            // Its rules are the aggregation's to write.
            return add_selectors(wanted, new);
        }
        let (owned, needed) = (defaults::rules(found), defaults::rules(wanted));
        let missing: Vec<PolicyRule> = covers::missing(&owned, &needed);
        append(new, &["rules"], missing.into_iter().map(|rule| json!(rule)).collect());
    })
}

fn step(found: &Object, change: impl FnOnce(&mut Object)) -> Step {
    let mut new = found.clone();
    change(&mut new);
    if new == *found { Step::Nothing } else { Step::Update(new) }
}

fn add_labels(wanted: &Object, new: &mut Object) {
    for (field, pairs) in [("labels", wanted.labels()), ("annotations", wanted.annotations())] {
        for (key, value) in pairs {
            new.set_default(&["metadata", field, key], value);
        }
    }
}

fn add_selectors(wanted: &Object, new: &mut Object) {
    let path = ["aggregationRule", "clusterRoleSelectors"];
    let pointer = "/aggregationRule/clusterRoleSelectors";
    let missing = missing_items(wanted, new, pointer);
    append(new, &path, missing);
}

fn add_missing(wanted: &Object, new: &mut Object, field: &str) {
    let missing = missing_items(wanted, new, &format!("/{field}"));
    append(new, &[field], missing);
}

fn missing_items(wanted: &Object, found: &Object, pointer: &str) -> Vec<Value> {
    let items =
        |object: &Object| object.at(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let there = items(found);
    items(wanted).into_iter().filter(|item| !there.contains(item)).collect()
}

fn append(object: &mut Object, path: &[&str], items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    let entry = object.entry(path);
    match entry.as_array_mut() {
        Some(array) => array.extend(items),
        None => *entry = Value::Array(items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str) -> Object {
        let mut found = defaults::all().iter().filter(|wanted| wanted.object.name() == name);
        found.next().expect("a default").object.clone()
    }

    #[test]
    fn what_is_as_it_must_be_is_left_alone() {
        for wanted in defaults::all() {
            assert_eq!(plan(&wanted.object, &wanted.object), Step::Nothing);
        }
    }

    #[test]
    fn a_rule_that_was_taken_away_comes_back_and_an_added_one_stays() {
        let wanted = wanted("system:basic-user");
        let mut found = wanted.clone();
        let added = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["nodes"] });
        found.set(&["rules"], json!([added]));
        let Step::Update(repaired) = plan(&wanted, &found) else { panic!("must be repaired") };
        let rules = defaults::rules(&repaired);
        assert!(covers::covers(&rules, &defaults::rules(&wanted)));
        assert_eq!(repaired.at("/rules/0"), Some(&added));
        assert_eq!(plan(&wanted, &repaired), Step::Nothing);
    }

    #[test]
    fn an_object_that_says_so_is_not_repaired() {
        let wanted = wanted("system:basic-user");
        let mut found = wanted.clone();
        found.set(&["rules"], json!([]));
        found.set(&["metadata", "annotations", AUTOUPDATE], "false");
        assert_eq!(plan(&wanted, &found), Step::Nothing);
    }

    #[test]
    fn a_binding_to_another_role_is_replaced_and_missing_subjects_come_back() {
        let wanted = defaults::all()
            .iter()
            .find(|w| w.object.name() == "system:basic-user" && w.kind.kind == "ClusterRoleBinding")
            .map(|w| w.object.clone())
            .expect("a default");
        let mut found = wanted.clone();
        found.remove(&["subjects"]);
        let Step::Update(repaired) = plan(&wanted, &found) else { panic!("must be repaired") };
        assert_eq!(repaired.at("/subjects"), wanted.at("/subjects"));
        found.set(&["roleRef", "name"], "cluster-admin");
        assert_eq!(plan(&wanted, &found), Step::Replace);
    }

    #[test]
    fn the_aggregates_have_their_rules_from_the_start() {
        let mut roles = defaults::all().to_vec();
        fill_aggregates(&mut roles);
        let rules = |name: &str| {
            let found = roles.iter().find(|wanted| wanted.object.name() == name);
            defaults::rules(&found.expect("a default").object)
        };
        let (admin, edit, view) = (rules("admin"), rules("edit"), rules("view"));
        assert!(covers::covers(&admin, &edit) && covers::covers(&edit, &view));
        assert!(!covers::covers(&view, &edit) && !covers::covers(&edit, &admin));
    }
}
