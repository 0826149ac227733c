//! Jobs and cron jobs.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::apps::SOON;
use crate::api::Patch;
use crate::cases;
use crate::world::{World, condition, holds, items, name_of, same};

cases! {
    "[sig-apps] Job should adopt matching orphans and release non-matching pods [Conformance]" => adopts,
    "[sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition [Conformance]"
        => ignores_disruption,
    "[sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early [Conformance]"
        => fails_early,
    "[sig-apps] Job should apply changes to a job status [Conformance]" => status,
    "[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname [Conformance]"
        => indexed,
    "[sig-apps] Job should delete a job [Conformance]" => deleted,
    "[sig-apps] Job should manage the lifecycle of a job [Conformance]" => lifecycle,
    "[sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted [Conformance]"
        => locally_restarted,
    "[sig-apps] CronJob should not schedule jobs when suspended [Slow] [Conformance]" => cron_suspended,
    "[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow] [Conformance]"
        => cron_forbids,
    "[sig-apps] CronJob should replace jobs when ReplaceConcurrent [Conformance]" => cron_replaces,
    "[sig-apps] CronJob should schedule multiple jobs concurrently [Conformance]" => cron_concurrent,
    "[sig-apps] CronJob should support CronJob API operations [Conformance]" => cron_operations,
}

const BATCH: &str = "batch/v1";
/// A schedule of every minute may be a minute away, twice.
const MINUTES: Duration = Duration::from_secs(200);

fn job(world: &World, name: &str, script: &str, spec: Value) -> Value {
    let mut template = world.shell(name, script)["spec"].clone();
    template["restartPolicy"] = json!("Never");
    let mut job = json!({
        "apiVersion": BATCH, "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": template}},
    });
    if let (Some(into), Some(from)) = (job["spec"].as_object_mut(), spec.as_object()) {
        into.extend(from.clone());
    }
    job
}

const WAITS: &str = "trap exit TERM; sleep 100000 & wait";

fn pods_path(world: &World, job: &str) -> String {
    let pods = world.path("v1", "pods", "");
    format!("{pods}?labelSelector=batch.kubernetes.io%2Fjob-name%3D{job}")
}

async fn running(world: &World, job: &str, count: usize) -> Result<Vec<Value>> {
    let ready = |list: &Value| {
        items(list).iter().filter(|pod| pod["status"]["phase"] == "Running").count() == count
    };
    let what = format!("{count} pods of {job} run");
    let list = world.wait(&what, &pods_path(world, job), SOON, ready).await?;
    Ok(items(&list).to_vec())
}

async fn done(world: &World, name: &str, kind: &str) -> Result<Value> {
    let path = world.path(BATCH, "jobs", name);
    let what = format!("job {name} is {kind}");
    world.wait(&what, &path, SOON, |job| condition(job, kind) == Some("True")).await
}

async fn adopts(world: World) -> Result<()> {
    let spec = json!({"parallelism": 2, "completions": 2});
    world.create(BATCH, "jobs", &job(&world, "adopt", WAITS, spec)).await?;
    let pods = running(&world, "adopt", 2).await?;
    let path = world.pod_path(name_of(&pods[0]));
    let nobody = json!({"metadata": {"ownerReferences": Value::Null}});
    world.api.patch(&path, Patch::Merge, &nobody).await?;
    let owned = |pod: &Value| pod["metadata"]["ownerReferences"][0]["kind"] == "Job";
    world.wait("the orphan is adopted", &path, SOON, owned).await?;
    let other = json!({"metadata": {"labels": {
        "job-name": Value::Null, "batch.kubernetes.io/job-name": Value::Null,
        "controller-uid": Value::Null, "batch.kubernetes.io/controller-uid": Value::Null,
    }}});
    world.api.patch(&path, Patch::Merge, &other).await?;
    let free =
        |pod: &Value| pod["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty);
    world.wait("the pod is released", &path, SOON, free).await.map(drop)
}

async fn ignores_disruption(world: World) -> Result<()> {
    let spec = json!({
        "backoffLimit": 0, "parallelism": 1, "completions": 1,
        "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]},
    });
    let script = "trap 'exit 1' TERM; if [ -e /state/second ]; then exit 0; fi; \
                  touch /state/second; sleep 100000 & wait";
    let mut object = job(&world, "ignore", script, spec);
    let folder = format!("/tmp/{}", world.ns);
    let pod = &mut object["spec"]["template"]["spec"];
    pod["volumes"] =
        json!([{"name": "state", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    pod["nodeName"] = json!(world.nodes().await?.first().context("a node")?);
    world.create(BATCH, "jobs", &object).await?;
    let pods = running(&world, "ignore", 1).await?;
    let name = name_of(&pods[0]).to_owned();
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name, "namespace": world.ns},
    });
    world.api.create(&format!("{}/eviction", world.pod_path(&name)), &eviction).await?;
    let job = done(&world, "ignore", "Complete").await?;
    same("no failure is counted", &json!(job["status"]["failed"].as_u64().unwrap_or(0)), &json!(0))
}

async fn fails_early(world: World) -> Result<()> {
    let spec = json!({
        "backoffLimit": 6,
        "podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [1]}},
        ]},
    });
    world.create(BATCH, "jobs", &job(&world, "early", "exit 1", spec)).await?;
    let failed = done(&world, "early", "Failed").await?;
    let conditions = failed["status"]["conditions"].as_array().context("conditions")?;
    let reason = conditions.iter().find(|it| it["type"] == "Failed").map(|it| &it["reason"]);
    same("reason", reason.context("a condition")?, &json!("PodFailurePolicy"))?;
    same("one failure", &failed["status"]["failed"], &json!(1))
}

async fn status(world: World) -> Result<()> {
    let spec = json!({"parallelism": 2, "completions": 4, "backoffLimit": 6});
    world.create(BATCH, "jobs", &job(&world, "status", WAITS, spec)).await?;
    running(&world, "status", 2).await?;
    let path = world.path(BATCH, "jobs", "status");
    let address = format!("{path}/status");
    let now = "2099-01-01T00:00:00Z";
    let added = json!({"type": "StatusUpdate", "status": "True", "lastTransitionTime": now});
    let updated = world
        .api
        .update(&address, |job| match job["status"]["conditions"].as_array_mut() {
            Some(conditions) => conditions.push(added.clone()),
            None => job["status"]["conditions"] = json!([added]),
        })
        .await?;
    same("condition", &json!(condition(&updated, "StatusUpdate")), &json!("True"))?;
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = world.api.patch(&address, Patch::Merge, &patch).await?;
    same("annotation", &patched["metadata"]["annotations"]["patched"], &json!("true"))
}

async fn indexed(world: World) -> Result<()> {
    let spec = json!({"parallelism": 2, "completions": 4, "completionMode": "Indexed"});
    let script = "test \"$(hostname)\" = \"indexed-$JOB_COMPLETION_INDEX\"";
    world.create(BATCH, "jobs", &job(&world, "indexed", script, spec)).await?;
    let job = done(&world, "indexed", "Complete").await?;
    same("indexes", &job["status"]["completedIndexes"], &json!("0-3"))?;
    same("succeeded", &job["status"]["succeeded"], &json!(4))?;
    let list = world.api.get(&pods_path(&world, "indexed")).await?;
    let index = |pod: &Value| {
        let annotation =
            &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
        annotation.as_str().map(str::to_owned)
    };
    let mut indexes: Vec<String> = items(&list).iter().filter_map(index).collect();
    indexes.sort();
    same("of the pods", &json!(indexes), &json!(["0", "1", "2", "3"]))
}

async fn deleted(world: World) -> Result<()> {
    let spec = json!({"parallelism": 2, "completions": 2});
    world.create(BATCH, "jobs", &job(&world, "gone", WAITS, spec)).await?;
    running(&world, "gone", 2).await?;
    let options = json!({"propagationPolicy": "Background"});
    world.api.delete_with(&world.path(BATCH, "jobs", "gone"), &options).await?;
    world.wait_gone(&world.path(BATCH, "jobs", "gone"), SOON).await?;
    let none = |list: &Value| items(list).is_empty();
    world.wait("its pods are gone", &pods_path(&world, "gone"), SOON, none).await.map(drop)
}

async fn lifecycle(world: World) -> Result<()> {
    let spec = json!({"suspend": true, "parallelism": 1, "completions": 1});
    world.create(BATCH, "jobs", &job(&world, "life", WAITS, spec)).await?;
    let path = world.path(BATCH, "jobs", "life");
    let suspended = |job: &Value| condition(job, "Suspended") == Some("True");
    world.wait("it is suspended", &path, SOON, suspended).await?;
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}});
    world.api.patch(&path, Patch::Merge, &patch).await?;
    let all = world.api.get("/apis/batch/v1/jobs?labelSelector=patched%3Dyes").await?;
    holds("it is listed over all namespaces", !items(&all).is_empty(), &all)?;
    world.api.update(&path, |job| job["spec"]["suspend"] = json!(false)).await?;
    running(&world, "life", 1).await?;
    let collection = format!("{}?labelSelector=patched%3Dyes", world.path(BATCH, "jobs", ""));
    let options = json!({"propagationPolicy": "Foreground"});
    world.api.delete_with(&collection, &options).await?;
    world.wait_gone(&path, SOON).await
}

async fn locally_restarted(world: World) -> Result<()> {
    let spec = json!({"parallelism": 2, "completions": 4});
    let script = "if [ -e /state/second ]; then exit 0; fi; touch /state/second; exit 1";
    let mut object = job(&world, "restarted", script, spec);
    let pod = &mut object["spec"]["template"]["spec"];
    pod["restartPolicy"] = json!("OnFailure");
    pod["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    world.create(BATCH, "jobs", &object).await?;
    let path = world.path(BATCH, "jobs", "restarted");
    let complete = |job: &Value| condition(job, "Complete") == Some("True");
    let job = world.wait("it is complete", &path, MINUTES, complete).await?;
    same("succeeded", &job["status"]["succeeded"], &json!(4))?;
    let list = world.api.get(&pods_path(&world, "restarted")).await?;
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    holds("each was restarted once", items(&list).iter().all(restarts), &list)
}

fn cron(world: &World, name: &str, schedule: &str, policy: &str, script: &str) -> Value {
    let template = job(world, name, script, json!({}));
    json!({
        "apiVersion": BATCH, "kind": "CronJob", "metadata": {"name": name, "labels": {"cron": name}},
        "spec": {
            "schedule": schedule, "concurrencyPolicy": policy,
            "jobTemplate": {"spec": template["spec"]},
        },
    })
}

async fn jobs_of(world: &World, name: &str) -> Result<Vec<Value>> {
    let list = world.api.get(&world.path(BATCH, "jobs", "")).await?;
    let ours = |job: &&Value| job["metadata"]["ownerReferences"][0]["name"] == name;
    Ok(items(&list).iter().filter(ours).cloned().collect())
}

async fn active(world: &World, name: &str, count: usize) -> Result<Vec<Value>> {
    let path = world.path(BATCH, "cronjobs", name);
    let has = |cron: &Value| cron["status"]["active"].as_array().map_or(0, Vec::len) == count;
    let what = format!("{count} jobs of {name} are active");
    let now = world.wait(&what, &path, MINUTES, has).await?;
    Ok(now["status"]["active"].as_array().cloned().unwrap_or_default())
}

async fn cron_suspended(world: World) -> Result<()> {
    let mut object = cron(&world, "suspended", "*/1 * * * *", "Allow", WAITS);
    object["spec"]["suspend"] = json!(true);
    world.create(BATCH, "cronjobs", &object).await?;
    sleep(Duration::from_secs(75)).await;
    let none = jobs_of(&world, "suspended").await?;
    holds("no job is made", none.is_empty(), &json!(none))
}

async fn cron_forbids(world: World) -> Result<()> {
    let object = cron(&world, "forbids", "*/1 * * * *", "Forbid", WAITS);
    world.create(BATCH, "cronjobs", &object).await?;
    let first = active(&world, "forbids", 1).await?;
    sleep(Duration::from_secs(70)).await;
    let jobs = jobs_of(&world, "forbids").await?;
    same("one job", &json!(jobs.len()), &json!(1))?;
    same("the same", &jobs[0]["metadata"]["name"], &first[0]["name"])
}

async fn cron_replaces(world: World) -> Result<()> {
    let object = cron(&world, "replaces", "*/1 * * * *", "Replace", WAITS);
    world.create(BATCH, "cronjobs", &object).await?;
    let first = active(&world, "replaces", 1).await?[0]["name"].clone();
    let path = world.path(BATCH, "cronjobs", "replaces");
    let another = |cron: &Value| {
        let active = cron["status"]["active"].as_array();
        active.is_some_and(|jobs| jobs.len() == 1 && jobs[0]["name"] != first)
    };
    world.wait("another job is in its place", &path, MINUTES, another).await?;
    let old = world.path(BATCH, "jobs", first.as_str().context("a job has a name")?);
    world.wait_gone(&old, SOON).await
}

async fn cron_concurrent(world: World) -> Result<()> {
    let object = cron(&world, "concurrent", "*/1 * * * *", "Allow", WAITS);
    world.create(BATCH, "cronjobs", &object).await?;
    active(&world, "concurrent", 2).await.map(drop)
}

async fn cron_operations(world: World) -> Result<()> {
    let groups = world.api.get("/apis").await?;
    let batch = groups["groups"].as_array().context("groups")?.iter();
    let versions = batch.filter(|group| group["name"] == "batch").map(|group| &group["versions"]);
    holds("batch/v1 is discovered", versions.count() == 1, &groups)?;
    let resources = world.api.get("/apis/batch/v1").await?;
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .context("resources")?
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    holds(
        "cronjobs are served",
        names.contains(&"cronjobs") && names.contains(&"cronjobs/status"),
        &json!(names),
    )?;

    let yearly = |name: &str| {
        let mut object = cron(&world, name, "0 0 1 1 *", "Allow", WAITS);
        object["metadata"]["labels"] = json!({"special": world.ns});
        object
    };
    for name in ["one", "two", "three"] {
        world.create(BATCH, "cronjobs", &yearly(name)).await?;
    }
    let chosen =
        format!("{}?labelSelector=special%3D{}", world.path(BATCH, "cronjobs", ""), world.ns);
    same("listed", &json!(items(&world.api.get(&chosen).await?).len()), &json!(3))?;
    let all = format!("/apis/batch/v1/cronjobs?labelSelector=special%3D{}", world.ns);
    same("over all namespaces", &json!(items(&world.api.get(&all).await?).len()), &json!(3))?;
    let mut watch = world.api.watch(&chosen).await?;
    let path = world.path(BATCH, "cronjobs", "one");
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    world.api.patch(&path, Patch::Merge, &patch).await?;
    let patched = |it: &Value| it["metadata"]["annotations"]["patched"] == "true";
    watch.expect("MODIFIED", SOON, patched).await?;
    world.api.update(&path, |it| it["metadata"]["annotations"]["updated"] = json!("true")).await?;
    watch.expect("MODIFIED", SOON, |it| it["metadata"]["annotations"]["updated"] == "true").await?;
    let status = json!({"status": {"lastScheduleTime": "2020-01-01T00:00:00Z"}});
    let patched = world.api.patch(&format!("{path}/status"), Patch::Merge, &status).await?;
    same("status", &patched["status"]["lastScheduleTime"], &json!("2020-01-01T00:00:00Z"))?;
    world.api.delete(&path).await?;
    watch.expect("DELETED", SOON, |it| name_of(it) == "one").await?;
    world.api.delete(&chosen).await?;
    world.wait("none is left", &chosen, SOON, |list| items(list).is_empty()).await.map(drop)
}
