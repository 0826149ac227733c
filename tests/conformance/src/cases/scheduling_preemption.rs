//! Preemption: pods of higher priority take the place of others, no more of them than must be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::scheduling_support::{
    SOON, ask, classes, node_of, nodes, offer, own_resource, pin, quiet, scheduled,
};
use crate::api::{Api, Patch, code_of};
use crate::cases;
use crate::world::{POD_WITHIN, World, holds, name_of, same};

cases! {
    "[sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works [Conformance]"
        => basic,
    "[sig-scheduling] SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod [Conformance]"
        => critical,
    "[sig-scheduling] SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod [Conformance]"
        => disrupted,
    "[sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption running path [Conformance]"
        => replica_sets,
}

/// How long it must stay as it is after that.
const SETTLED: Duration = Duration::from_secs(10);
/// Keeps a preempted pod's object for a look at it.
const FINALIZER: &str = "example.com/kept";

async fn three_classes(world: &World) -> Result<()> {
    classes(world, &[("low", 1), ("medium", 100), ("high", 1000)]).await
}

/// A pod of a class of the case that asks for so much of the case's resource.
fn pod_of(world: &World, name: &str, class: &str, amount: &str) -> Value {
    let mut pod = world.sleeper(name);
    pod["spec"]["priorityClassName"] = json!(world.unique(class));
    ask(&mut pod, &own_resource(world), amount);
    pod
}

/// Fills all nodes but for less than a pod wants; one of them with the only pod of low priority. Returns
/// that pod's name and node, and the names of the others.
async fn filled(world: &World) -> Result<(String, String, Vec<String>)> {
    quiet(world).await?;
    three_classes(world).await?;
    let nodes = nodes(world, 1).await?;
    let mut names = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        offer(world, node, &own_resource(world), "5").await?;
        for place in 0..2 {
            let class = if names.is_empty() { "low" } else { "medium" };
            let mut pod = pod_of(world, &format!("{class}-{number}-{place}"), class, "2");
            pin(&mut pod, node);
            world.create("v1", "pods", &pod).await?;
            names.push(name_of(&pod).to_owned());
        }
    }
    for name in &names {
        world.ready(name).await?;
    }
    let victim = names.remove(0);
    Ok((victim, nodes[0].clone(), names))
}

/// Whether a pod is gone or on its way out.
async fn has_left(world: &World, name: &str) -> Result<bool> {
    match world.api.get(&world.pod_path(name)).await {
        Ok(pod) => Ok(!pod["metadata"]["deletionTimestamp"].is_null()),
        Err(error) if code_of(&error) == Some(404) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Expects that the pod at `path` gets the victim's place, and that all others stay.
async fn takes_the_place(
    world: &World,
    path: &str,
    fill: (String, String, Vec<String>),
) -> Result<()> {
    let (victim, node, others) = fill;
    let running = |pod: &Value| pod["status"]["phase"] == "Running";
    let pod = world.wait("it runs", path, POD_WITHIN, running).await?;
    same("where it runs", &json!(node_of(&pod)), &json!(node))?;
    holds("the least important one has left", has_left(world, &victim).await?, &json!(victim))?;
    for name in others {
        let stays = |pod: &Value| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
        };
        world.stays(&name, Duration::ZERO, "it is left alone", stays).await?;
    }
    Ok(())
}

async fn basic(world: World) -> Result<()> {
    let fill = filled(&world).await?;
    world.create("v1", "pods", &pod_of(&world, "preemptor", "high", "2")).await?;
    takes_the_place(&world, &world.pod_path("preemptor"), fill).await
}

async fn critical(world: World) -> Result<()> {
    let fill = filled(&world).await?;
    let name = world.unique("critical");
    let mut pod = pod_of(&world, &name, "high", "2");
    pod["spec"]["priorityClassName"] = json!("system-cluster-critical");
    let path = world.path_in("kube-system", "v1", "pods", &name);
    world.leftovers.note(path.clone());
    let made = world.api.create(&world.path_in("kube-system", "v1", "pods", ""), &pod).await?;
    same("its priority", &made["spec"]["priority"], &json!(2_000_000_000))?;
    takes_the_place(&world, &path, fill).await
}

async fn disrupted(world: World) -> Result<()> {
    quiet(&world).await?;
    three_classes(&world).await?;
    let node = nodes(&world, 1).await?.swap_remove(0);
    offer(&world, &node, &own_resource(&world), "1").await?;
    let mut victim = pod_of(&world, "victim", "low", "1");
    victim["metadata"]["finalizers"] = json!([FINALIZER]);
    pin(&mut victim, &node);
    let path = world.pod_path("victim");
    let let_go = json!({"metadata": {"finalizers": null}});
    world.leftovers.note_change(path.clone(), let_go.clone());
    world.run(&victim).await?;
    let mut preemptor = pod_of(&world, "preemptor", "high", "1");
    pin(&mut preemptor, &node);
    world.create("v1", "pods", &preemptor).await?;
    let ending = |pod: &Value| !pod["metadata"]["deletionTimestamp"].is_null();
    let victim = world.wait("the victim is ending", &path, SOON, ending).await?;
    let conditions = victim["status"]["conditions"].as_array().into_iter().flatten();
    let mut targets = conditions.filter(|known| known["type"] == "DisruptionTarget");
    let target = targets.next().with_context(|| format!("it is a target: {}", victim["status"]))?;
    same("whether it is one", &target["status"], &json!("True"))?;
    same("for which reason", &target["reason"], &json!("PreemptionByScheduler"))?;
    world.api.patch(&path, Patch::Merge, &let_go).await?;
    world.wait_gone(&path, POD_WITHIN).await?;
    let preemptor = world.ready("preemptor").await?;
    same("its node", &json!(node_of(&preemptor)), &json!(node))
}

/// The uids of the pods that there were, by their label `name`.
type Seen = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

/// Notes every pod of a collection that there is, until it is dropped.
async fn note_pods(api: Api, path: String, seen: Seen) {
    loop {
        // A new watch begins with what there is: who is met again is known by the uid.
        if let Ok(mut watch) = api.watch(&path).await {
            while let Some(event) = watch.next(POD_WITHIN).await {
                let metadata = &event["object"]["metadata"];
                let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let uids = seen.entry(text(&metadata["labels"]["name"])).or_default();
                uids.insert(text(&metadata["uid"]));
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// How many pods there were of each replica set.
fn counts(seen: &Seen) -> [usize; 3] {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    ["p1", "p2", "p3"].map(|name| seen.get(name).map_or(0, BTreeSet::len))
}

/// Waits until there were so many.
async fn counted(seen: &Seen, expected: [usize; 3]) -> Result<()> {
    let until = Instant::now() + SOON;
    while counts(seen) != expected && Instant::now() < until {
        sleep(Duration::from_millis(250)).await;
    }
    same("pods of the sets so far", &json!(counts(seen)), &json!(expected))
}

/// A replica set of one such pod.
fn set_of(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    spec["restartPolicy"] = json!("Always");
    let labels = &pod["metadata"]["labels"];
    json!({
        "metadata": {"name": name_of(pod)},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

async fn replica_sets(world: World) -> Result<()> {
    quiet(&world).await?;
    let node = nodes(&world, 1).await?.swap_remove(0);
    offer(&world, &node, &own_resource(&world), "100").await?;
    classes(&world, &[("p1", 1), ("p2", 2), ("p3", 3), ("p4", 4)]).await?;
    let seen = Seen::default();
    let mut noting = JoinSet::new();
    let pods = world.path("v1", "pods", "");
    noting.spawn(note_pods(world.api.clone(), pods, Arc::clone(&seen)));

    for (name, amount) in [("p1", "20"), ("p2", "30"), ("p3", "45")] {
        let mut pod = pod_of(&world, name, name, amount);
        pin(&mut pod, &node);
        world.create("apps/v1", "replicasets", &set_of(&pod)).await?;
        let path = world.path("apps/v1", "replicasets", name);
        let has_one = |set: &Value| set["status"]["availableReplicas"] == 1;
        world.wait("it has its pod", &path, POD_WITHIN, has_one).await?;
    }
    counted(&seen, [1, 1, 1]).await?;

    // 5 are free: the third may stay if both others leave.
    let mut preemptor = pod_of(&world, "p4", "p4", "50");
    pin(&mut preemptor, &node);
    world.create("v1", "pods", &preemptor).await?;
    let preemptor = scheduled(&world, "p4").await?;
    same("its node", &json!(node_of(&preemptor)), &json!(node))?;
    counted(&seen, [2, 2, 1]).await?;
    // Who came instead has no room, and makes none.
    sleep(SETTLED).await;
    same("pods of the sets", &json!(counts(&seen)), &json!([2, 2, 1]))?;
    world.ready("p4").await?;
    for (name, available) in [("p1", 0), ("p2", 0), ("p3", 1)] {
        let set = world.api.get(&world.path("apps/v1", "replicasets", name)).await?;
        let now = set["status"]["availableReplicas"].as_u64().unwrap_or(0);
        same(&format!("available pods of {name}"), &json!(now), &json!(available))?;
    }
    Ok(())
}
