//! Deployments and the disruption of their pods.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::apps::{SOON, pods_of, workload};
use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, condition, holds, items, name_of, same};

cases! {
    "[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones [Conformance]"
        => recreate,
    "[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]"
        => rolling_update,
    "[sig-apps] Deployment deployment should delete old replica sets [Conformance]" => old_sets,
    "[sig-apps] Deployment deployment should support proportional scaling [Conformance]"
        => proportional_scaling,
    "[sig-apps] Deployment deployment should support rollover [Conformance]" => rollover,
    "[sig-apps] Deployment should run the lifecycle of a Deployment [Conformance]" => lifecycle,
    "[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets [Conformance]"
        => budgets_collection,
    "[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it [Conformance]"
        => eviction_blocked,
    "[sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]"
        => budget_created,
    "[sig-apps] DisruptionController should observe PodDisruptionBudget status updated [Conformance]"
        => budget_observed,
    "[sig-apps] DisruptionController should update/patch PodDisruptionBudget status [Conformance]"
        => budget_status,
}

const APPS: &str = "apps/v1";

fn deployment(world: &World, replicas: u32) -> Value {
    workload(world, APPS, "Deployment", "web", replicas)
}

/// A change of the template, so that pods are made anew.
fn stamp(value: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {"stamp": value}}}}})
}

/// All replicas are of the newest template, and available.
fn is_complete(object: &Value) -> bool {
    let (spec, status) = (&object["spec"], &object["status"]);
    status["observedGeneration"] == object["metadata"]["generation"]
        && ["updatedReplicas", "replicas", "availableReplicas"]
            .iter()
            .all(|field| status[*field] == spec["replicas"])
}

async fn complete(world: &World) -> Result<Value> {
    world.wait("it is complete", &world.path(APPS, "deployments", "web"), SOON, is_complete).await
}

async fn sets(world: &World) -> Result<Vec<Value>> {
    let path = format!("{}?labelSelector=app%3Dweb", world.path(APPS, "replicasets", ""));
    Ok(items(&world.api.get(&path).await?).to_vec())
}

async fn recreate(world: World) -> Result<()> {
    let mut object = deployment(&world, 2);
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    world.create(APPS, "deployments", &object).await?;
    complete(&world).await?;
    let old: Vec<String> =
        pods_of(&world, "web").await?.iter().map(|pod| name_of(pod).to_owned()).collect();
    let pods = format!("{}?labelSelector=app%3Dweb", world.path("v1", "pods", ""));
    let mut watch = world.api.watch(&pods).await?;
    world.api.patch(&world.path(APPS, "deployments", "web"), Patch::Merge, &stamp("2")).await?;
    let mut alive = old.len();
    // No new pod may run before the last old one is gone.
    while let Some(event) = watch.next(SOON).await {
        let pod = &event["object"];
        let is_old = old.iter().any(|name| name == name_of(pod));
        if is_old && event["type"] == "DELETED" {
            alive -= 1;
        }
        if !is_old && pod["status"]["phase"] == "Running" {
            holds("old pods are gone before new ones run", alive == 0, &json!(alive))?;
            return complete(&world).await.map(drop);
        }
    }
    anyhow::bail!("no new pod ran")
}

async fn rolling_update(world: World) -> Result<()> {
    // A set that is there before is taken over, and becomes the old one.
    let mut set = workload(&world, APPS, "ReplicaSet", "old", 1);
    for labels in
        ["/metadata/labels", "/spec/selector/matchLabels", "/spec/template/metadata/labels"]
    {
        *set.pointer_mut(labels).context("a set has labels")? = json!({"app": "web"});
    }
    set["spec"]["template"]["metadata"]["annotations"] = json!({"stamp": "old"});
    set["metadata"]["annotations"] =
        json!({"deployment.kubernetes.io/revision": "3546343826724305832"});
    world.create(APPS, "replicasets", &set).await?;
    let path = world.path(APPS, "replicasets", "old");
    world
        .wait("the old pod is ready", &path, SOON, |set| set["status"]["readyReplicas"] == 1)
        .await?;
    world.create(APPS, "deployments", &deployment(&world, 1)).await?;
    complete(&world).await?;
    let old = world
        .wait("the old set is empty", &path, SOON, |set| set["status"]["replicas"] == 0)
        .await?;
    same("it was adopted", &old["metadata"]["ownerReferences"][0]["kind"], &json!("Deployment"))?;
    let sets = sets(&world).await?;
    let new = sets.iter().find(|set| name_of(set) != "old").context("a new set")?;
    let revision = &new["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
    same("its revision follows the old one's", revision, &json!("3546343826724305833"))
}

async fn old_sets(world: World) -> Result<()> {
    let mut object = deployment(&world, 1);
    object["spec"]["revisionHistoryLimit"] = json!(0);
    world.create(APPS, "deployments", &object).await?;
    complete(&world).await?;
    world.api.patch(&world.path(APPS, "deployments", "web"), Patch::Merge, &stamp("2")).await?;
    complete(&world).await?;
    let path = format!("{}?labelSelector=app%3Dweb", world.path(APPS, "replicasets", ""));
    world.wait("one set is left", &path, SOON, |list| items(list).len() == 1).await.map(drop)
}

async fn proportional_scaling(world: World) -> Result<()> {
    let mut object = deployment(&world, 5);
    object["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}});
    let path = world.path(APPS, "deployments", "web");
    world.create(APPS, "deployments", &object).await?;
    world
        .wait("five are available", &path, SOON, |it| it["status"]["availableReplicas"] == 5)
        .await?;
    // An image that nobody has: the new pods never become available.
    let broken = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "registry.invalid/none:1", "imagePullPolicy": "IfNotPresent"},
    ]}}}});
    world.api.patch(&path, Patch::Strategic, &broken).await?;
    let old_keeps_4 = |list: &Value| {
        let wanted: Vec<u64> =
            items(list).iter().filter_map(|set| set["spec"]["replicas"].as_u64()).collect();
        wanted.len() == 2 && wanted.contains(&4) && wanted.contains(&3)
    };
    let sets = format!("{}?labelSelector=app%3Dweb", world.path(APPS, "replicasets", ""));
    world.wait("4 old and 3 new are wanted", &sets, SOON, old_keeps_4).await?;
    let scale = json!({"spec": {"replicas": 15}});
    world.api.patch(&format!("{path}/scale"), Patch::Merge, &scale).await?;
    // 17 in all: 4 of 7 and 3 of 7 of the ten more, with the rest for the larger.
    let shared = |list: &Value| {
        let mut wanted: Vec<u64> =
            items(list).iter().filter_map(|set| set["spec"]["replicas"].as_u64()).collect();
        wanted.sort_unstable();
        wanted == [7, 10]
    };
    world.wait("10 old and 7 new are wanted", &sets, SOON, shared).await.map(drop)
}

async fn rollover(world: World) -> Result<()> {
    let mut object = deployment(&world, 1);
    object["spec"]["minReadySeconds"] = json!(3);
    object["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.invalid/none:1");
    world.create(APPS, "deployments", &object).await?;
    let sets_path = format!("{}?labelSelector=app%3Dweb", world.path(APPS, "replicasets", ""));
    world.wait("the first set", &sets_path, SOON, |list| items(list).len() == 1).await?;
    let good = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": world.image},
    ]}}}});
    world.api.patch(&world.path(APPS, "deployments", "web"), Patch::Strategic, &good).await?;
    complete(&world).await?;
    let all = sets(&world).await?;
    same("two sets", &json!(all.len()), &json!(2))?;
    let used = all.iter().filter(|set| set["spec"]["replicas"].as_u64() > Some(0)).count();
    same("one of them is used", &json!(used), &json!(1))
}

async fn lifecycle(world: World) -> Result<()> {
    let collection = format!("{}?labelSelector=app%3Dweb", world.path(APPS, "deployments", ""));
    let mut watch = world.api.watch(&collection).await?;
    world.create(APPS, "deployments", &deployment(&world, 1)).await?;
    watch.expect("ADDED", SOON, |it| name_of(it) == "web").await?;
    watch.expect("MODIFIED", SOON, |it| it["status"]["readyReplicas"] == 1).await?;
    let path = world.path(APPS, "deployments", "web");
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}, "spec": {"replicas": 2}});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    watch.expect("MODIFIED", SOON, |it| it["status"]["readyReplicas"] == 2).await?;
    let all = world.api.get("/apis/apps/v1/deployments?labelSelector=patched%3Dyes").await?;
    holds("it is listed over all namespaces", !items(&all).is_empty(), &all)?;
    world.api.update(&path, |it| it["metadata"]["labels"]["updated"] = json!("yes")).await?;
    watch.expect("MODIFIED", SOON, |it| it["metadata"]["labels"]["updated"] == "yes").await?;
    let status = world.api.get(&format!("{path}/status")).await?;
    same("status", &status["status"]["readyReplicas"], &json!(2))?;
    world.api.delete(&collection).await?;
    watch.expect("DELETED", SOON, |it| name_of(it) == "web").await.map(drop)
}

fn budget(name: &str, available: Value) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": {"budget": "yes"}},
        "spec": {"minAvailable": available, "selector": {"matchLabels": {"app": "web"}}},
    })
}

const POLICY: &str = "policy/v1";
const BUDGETS: &str = "poddisruptionbudgets";

/// The disruption controller has seen the budget as it is now.
fn is_observed(budget: &Value) -> bool {
    budget["status"]["observedGeneration"] == budget["metadata"]["generation"]
}

async fn budgets_collection(world: World) -> Result<()> {
    let other = world.namespace("other").await?;
    world.create(POLICY, BUDGETS, &budget("one", json!(1))).await?;
    world.api.create(&world.path_in(&other, POLICY, BUDGETS, ""), &budget("two", json!(1))).await?;
    let all =
        world.api.get("/apis/policy/v1/poddisruptionbudgets?labelSelector=budget%3Dyes").await?;
    let mut names: Vec<&str> = items(&all)
        .iter()
        .filter(|it| {
            it["metadata"]["namespace"].as_str().is_some_and(|ns| ns.starts_with(&world.ns))
        })
        .map(name_of)
        .collect();
    names.sort_unstable();
    same("over all namespaces", &json!(names), &json!(["one", "two"]))?;
    world.api.delete(&world.path(POLICY, BUDGETS, "")).await?;
    world.wait_gone(&world.path(POLICY, BUDGETS, "one"), SOON).await?;
    world.api.get(&world.path_in(&other, POLICY, BUDGETS, "two")).await.map(drop)
}

async fn budget_created(world: World) -> Result<()> {
    world.create(POLICY, BUDGETS, &budget("web", json!(1))).await?;
    let path = world.path(POLICY, BUDGETS, "web");
    world.wait("it is observed", &path, SOON, is_observed).await?;
    world.api.update(&path, |it| it["spec"]["minAvailable"] = json!("2%")).await?;
    let updated = world.wait("it is observed again", &path, SOON, is_observed).await?;
    same("updated", &updated["spec"]["minAvailable"], &json!("2%"))?;
    let patch = json!({"spec": {"minAvailable": "3%"}});
    world.api.patch(&path, Patch::Strategic, &patch).await?;
    let patched = world.wait("and again", &path, SOON, is_observed).await?;
    same("patched", &patched["spec"]["minAvailable"], &json!("3%"))?;
    world.api.delete(&path).await?;
    world.wait_gone(&path, SOON).await
}

async fn budget_observed(world: World) -> Result<()> {
    world.create(POLICY, BUDGETS, &budget("web", json!(1))).await?;
    world.create(APPS, "replicasets", &workload(&world, APPS, "ReplicaSet", "web", 3)).await?;
    let path = world.path(POLICY, BUDGETS, "web");
    let counted = |it: &Value| {
        let status = &it["status"];
        status["currentHealthy"] == 3
            && status["expectedPods"] == 3
            && status["disruptionsAllowed"] == 2
    };
    let now = world.wait("three healthy pods are counted", &path, SOON, counted).await?;
    same("condition", &json!(condition(&now, "DisruptionAllowed")), &json!("True"))
}

async fn budget_status(world: World) -> Result<()> {
    world.create(POLICY, BUDGETS, &budget("web", json!(1))).await?;
    let path = world.path(POLICY, BUDGETS, "web");
    world.wait("it is observed", &path, SOON, is_observed).await?;
    world.create(APPS, "replicasets", &workload(&world, APPS, "ReplicaSet", "web", 2)).await?;
    let healthy = |it: &Value| it["status"]["currentHealthy"] == 2;
    world.wait("two are healthy", &path, SOON, healthy).await?;
    let address = format!("{path}/status");
    let far = "2099-01-01T00:00:00Z";
    let updated = world
        .api
        .update(&address, |it| it["status"]["disruptedPods"] = json!({"left": far}))
        .await?;
    same("updated", &updated["status"]["disruptedPods"]["left"], &json!(far))?;
    let patch = json!({"status": {"disruptedPods": Value::Null}});
    let patched = world.api.patch(&address, Patch::Merge, &patch).await?;
    same("patched", &patched["status"]["disruptedPods"], &Value::Null)
}

async fn eviction_blocked(world: World) -> Result<()> {
    let all = budget("web", json!(1));
    world.create(POLICY, BUDGETS, &all).await?;
    let path = world.path(POLICY, BUDGETS, "web");
    world.create(APPS, "replicasets", &workload(&world, APPS, "ReplicaSet", "web", 1)).await?;
    let healthy = |it: &Value| it["status"]["currentHealthy"] == 1 && is_observed(it);
    world.wait("one is healthy", &path, SOON, healthy).await?;
    let pods = pods_of(&world, "web").await?;
    let pod = name_of(pods.first().context("a pod")?).to_owned();
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": world.ns},
    });
    let address = format!("{}/eviction", world.pod_path(&pod));
    let status = refused(world.api.create(&address, &eviction).await, 429, "TooManyRequests")?;
    same("cause", &status["details"]["causes"][0]["reason"], &json!("DisruptionBudget"))?;
    let patch = json!({"spec": {"minAvailable": 0}});
    world.api.patch(&path, Patch::Merge, &patch).await?;
    world.wait("one may go", &path, SOON, |it| it["status"]["disruptionsAllowed"] == 1).await?;
    world.api.create(&address, &eviction).await?;
    world.wait_gone(&world.pod_path(&pod), SOON).await
}
