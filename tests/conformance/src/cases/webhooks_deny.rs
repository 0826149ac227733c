//! Webhooks that deny.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::hooks::{
    MARK, MUTATING, SOON, VALIDATING, VERSION, attempt, config_map, configuration, global_webhook,
    in_force, register, rule, start, webhook,
};
use super::{crds, hooks};
use crate::api::{Patch, Refused, code_of};
use crate::cases;
use crate::world::{World, holds, name_of, same, until};

cases! {
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny attaching pod [Conformance]"
        => attaching,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny custom resource creation, update and deletion [Conformance]"
        => custom_resource,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny pod and configmap creation [Conformance]"
        => pods_and_config_maps,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should deny crd creation [Conformance]"
        => crd_creation,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should honor timeout [Conformance]"
        => honors_timeout,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should not be able to mutate or prevent deletion of webhook configuration objects [Conformance]"
        => not_themselves,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should unconditionally reject operations on fail closed webhook [Conformance]"
        => fail_closed,
}

/// What a denial says.
fn denial(result: &Result<Value>) -> Option<String> {
    let refused = result.as_ref().err()?.downcast_ref::<Refused>()?;
    Some(refused.body["message"].as_str().unwrap_or_default().to_owned())
}

/// It must be denied with these words.
fn denied(result: Result<Value>, words: &str) -> Result<()> {
    let said = denial(&result).unwrap_or_default();
    let result = result.unwrap_or_else(|error| json!(format!("{error:#}")));
    holds(words, said.contains("denied the request") && said.contains(words), &result)
}

fn is_denied(result: &Result<Value>) -> bool {
    denial(result).is_some_and(|said| said.contains("denied the request"))
}

fn marked_data() -> Value {
    json!({MARK.0: MARK.1})
}

async fn attaching(world: World) -> Result<()> {
    let server = start(&world).await?;
    let connect = rule("", "v1", "pods/attach", &["CONNECT"]);
    world.run(&world.sleeper("shut")).await?;
    register(&world, VALIDATING, &[webhook(&world, &server, "/attach", &connect)]).await?;
    until(SOON, || async {
        let attached = world.kubectl(&["attach", "--pod-running-timeout=5s", "shut"]);
        // Where it is not denied, it goes on as long as the pod.
        match tokio::time::timeout(Duration::from_secs(10), attached).await {
            Ok(Err(error)) => {
                let said = format!("{error:#}");
                holds(
                    "it is denied",
                    said.contains("attaching to this pod is not allowed"),
                    &json!(said),
                )
            }
            other => anyhow::bail!("attached: {other:?}"),
        }
    })
    .await?;
    // Nothing else is.
    same("what is said", &json!(world.exec("shut", "echo open").await?.trim()), &json!("open"))
}

async fn custom_resource(world: World) -> Result<()> {
    let server = start(&world).await?;
    crds::establish(&world, &crds::open(&world, "gadgets", "Gadget")).await?;
    let group = crds::group(&world);
    let version = format!("{group}/v1");
    let rule = rule(&group, "*", "gadgets", &["CREATE", "UPDATE", "DELETE"]);
    register(&world, VALIDATING, &[webhook(&world, &server, "/custom", &rule)]).await?;
    let object = |name: &str, data: &Value| json!({"apiVersion": version, "kind": "Gadget", "metadata": {"name": name}, "data": data});
    until(SOON, || async {
        denied(
            attempt(&world, &version, "gadgets", &object("no", &marked_data())).await,
            "unwanted data",
        )
    })
    .await?;
    let made = world.create(&version, "gadgets", &object("no", &marked_data())).await;
    denied(made, "unwanted data")?;
    world.create(&version, "gadgets", &object("kept", &json!({"a": "b"}))).await?;
    let path = world.path(&version, "gadgets", "kept");
    let mark = json!({"data": marked_data()});
    denied(world.api.patch(&path, Patch::Merge, &mark).await, "unwanted data")?;
    // Marked behind the webhook's back, it cannot be deleted until the mark is off.
    marked_without(&world, &path, &mark).await?;
    denied(world.api.delete(&path).await, "unwanted data")?;
    let unmark = json!({"data": {MARK.0: "ok"}});
    world.api.patch(&path, Patch::Merge, &unmark).await?;
    world.api.delete(&path).await.map(drop)
}

/// Patches while the namespace's webhook does not look at changes.
async fn marked_without(world: &World, path: &str, patch: &Value) -> Result<()> {
    let hook = world.global(VERSION, VALIDATING, &world.unique("hooks"));
    let operations = async |all: Value| {
        let patch =
            json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": all}]);
        world.api.patch(&hook, Patch::Json, &patch).await
    };
    operations(json!(["DELETE"])).await?;
    until(SOON, || world.api.patch(path, Patch::Merge, patch)).await?;
    operations(json!(["CREATE", "UPDATE", "DELETE"])).await?;
    let dry = format!("{path}?dryRun=All");
    let again = json!({"metadata": {"labels": {"again": "yes"}}});
    until(SOON, || async {
        denied(world.api.patch(&dry, Patch::Merge, &again).await, "unwanted data")
    })
    .await
}

async fn pods_and_config_maps(world: World) -> Result<()> {
    let server = start(&world).await?;
    let pods = rule("", "v1", "pods", &["CREATE"]);
    let maps = rule("", "v1", "configmaps", &["CREATE", "UPDATE", "DELETE"]);
    let skip = json!([{"key": "skip-webhook", "operator": "DoesNotExist"}]);
    let mut hooks = [
        webhook(&world, &server, "/pods", &pods),
        webhook(&world, &server, "/configmaps", &maps),
        webhook(&world, &server, "/pods", &pods),
    ];
    hooks[1]["namespaceSelector"]["matchExpressions"] = skip;
    hooks[2]["name"] = json!("hang.conformance.example.com");
    hooks[2]["timeoutSeconds"] = json!(3);
    hooks[2]["objectSelector"] = json!({"matchLabels": {"hang": "yes"}});
    hooks[0]["objectSelector"] =
        json!({"matchExpressions": [{"key": "hang", "operator": "DoesNotExist"}]});
    register(&world, VALIDATING, &hooks).await?;
    let bad = config_map("bad", &marked_data());
    in_force(&world, &bad, is_denied).await?;
    denied(world.create("v1", "configmaps", &bad).await, "unwanted key and value")?;
    let mut pod = world.sleeper("bad");
    pod["metadata"]["labels"][MARK.0] = json!(MARK.1);
    denied(world.create("v1", "pods", &pod).await, "unwanted label")?;
    hangs(&world).await?;
    world.create("v1", "configmaps", &config_map("good", &json!({"a": "b"}))).await?;
    let good = world.path("v1", "configmaps", "good");
    let patch = json!({"data": marked_data()});
    denied(world.api.patch(&good, Patch::Merge, &patch).await, "unwanted key and value")?;
    let put = world.api.update(&good, |map| map["data"] = marked_data()).await;
    denied(put, "unwanted key and value")?;
    skipped(&world, &bad).await
}

/// A webhook that does not answer is a refusal of its own.
async fn hangs(world: &World) -> Result<()> {
    let mut pod = world.sleeper("hanging");
    pod["metadata"]["labels"]["hang"] = json!("yes");
    let said = denial(&world.create("v1", "pods", &pod).await).unwrap_or_default();
    let late = said.contains("deadline") || said.contains("timeout");
    holds("it says that it took too long", late, &json!(said))
}

/// What the selector leaves out is not asked about.
async fn skipped(world: &World, object: &Value) -> Result<()> {
    let other = world.namespace("skipped").await?;
    let path = world.global("v1", "namespaces", &other);
    let label = json!({"metadata": {"labels": {"skip-webhook": "yes"}}});
    world.api.patch(&path, Patch::Merge, &label).await?;
    let maps = world.path_in(&other, "v1", "configmaps", "");
    until(SOON, || world.api.create(&maps, object)).await.map(drop)
}

async fn crd_creation(world: World) -> Result<()> {
    let server = start(&world).await?;
    let rule = rule("apiextensions.k8s.io", "*", crds::PLURAL, &["CREATE"]);
    register(&world, VALIDATING, &[global_webhook(&world, &server, "/crd", &rule)]).await?;
    let mut crd = crds::open(&world, "gadgets", "Gadget");
    crd["metadata"]["labels"] = json!({"conformance": world.ns, MARK.0: MARK.1});
    let path = world.global(crds::VERSION, crds::PLURAL, "");
    until(SOON, || async {
        denied(world.api.create(&format!("{path}?dryRun=All"), &crd).await, "unwanted label")
    })
    .await?;
    world.leftovers.note(crds::path(&world, &crd));
    denied(world.api.create(&path, &crd).await, "unwanted label")
}

/// Registers a webhook that takes five seconds, and gives what comes of a request, and how long.
async fn slow(
    world: &World,
    policy: &str,
    timeout: Option<u32>,
) -> Result<(Result<Value>, Duration)> {
    let hook = world.global(VERSION, VALIDATING, &world.unique("hooks"));
    let patch = json!([
        {"op": "add", "path": "/webhooks/0/failurePolicy", "value": policy},
        {"op": "add", "path": "/webhooks/0/timeoutSeconds", "value": timeout},
    ]);
    let patched = world.api.patch(&hook, Patch::Json, &patch).await?;
    same("its time", &patched["webhooks"][0]["timeoutSeconds"], &json!(timeout.unwrap_or(10)))?;
    // That much later every server goes by it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    let result = attempt(world, "v1", "configmaps", &config_map("slow", &json!({}))).await;
    Ok((result, began.elapsed()))
}

async fn honors_timeout(world: World) -> Result<()> {
    let server = start(&world).await?;
    let rule = rule("", "v1", "configmaps", &["CREATE"]);
    let mut hook = webhook(&world, &server, "/delay-5s", &rule);
    hook["timeoutSeconds"] = json!(1);
    register(&world, VALIDATING, &[hook]).await?;
    let late = |result: &Result<Value>| {
        denial(result).is_some_and(|said| said.contains("deadline") || said.contains("timeout"))
    };
    in_force(&world, &config_map("slow", &json!({})), late).await?;
    let (short_fail, _) = slow(&world, "Fail", Some(1)).await?;
    holds("too short, and it must succeed", late(&short_fail), &json!(denial(&short_fail)))?;
    let (short_ignored, _) = slow(&world, "Ignore", Some(1)).await?;
    holds("too short, and ignored", short_ignored.is_ok(), &json!(denial(&short_ignored)))?;
    for timeout in [Some(20), None] {
        let (long, took) = slow(&world, "Fail", timeout).await?;
        holds("long enough", long.is_ok(), &json!(denial(&long)))?;
        holds("it was waited for", took >= Duration::from_secs(5), &json!(took.as_secs_f64()))?;
    }
    Ok(())
}

async fn fail_closed(world: World) -> Result<()> {
    let server = start(&world).await?;
    let rule = rule("", "v1", "configmaps", &["CREATE"]);
    let mut hook = webhook(&world, &server, "/always-allow", &rule);
    // Nobody whom it trusts.
    if let Some(config) = hook["clientConfig"].as_object_mut() {
        config.remove("caBundle");
    }
    hook["failurePolicy"] = json!("Fail");
    register(&world, VALIDATING, &[hook]).await?;
    let object = config_map("closed", &json!({}));
    in_force(&world, &object, Result::is_err).await?;
    let result = world.create("v1", "configmaps", &object).await;
    let code = result.as_ref().err().and_then(code_of);
    same("the code", &json!(code), &json!(500))?;
    let said = denial(&result).unwrap_or_default();
    holds("it says so", said.contains("failed calling webhook"), &json!(said))
}

async fn not_themselves(world: World) -> Result<()> {
    let server = start(&world).await?;
    let all = json!({
        "apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"],
        "resources": [VALIDATING, MUTATING], "operations": ["CREATE", "UPDATE", "DELETE"],
    });
    let mut maps = webhook(&world, &server, "/deny", &rule("", "v1", "configmaps", &["CREATE"]));
    maps["name"] = json!("maps.conformance.example.com");
    let deny = global_webhook(&world, &server, "/deny", &all);
    register(&world, VALIDATING, &[deny, maps]).await?;
    register(&world, MUTATING, &[global_webhook(&world, &server, "/label", &all)]).await?;
    // The one that can be seen shows that the other is in force, too.
    in_force(&world, &config_map("any", &json!({})), is_denied).await?;
    for plural in [VALIDATING, MUTATING] {
        let hook = webhook(&world, &server, "/none", &rule("", "v1", "none", &["CREATE"]));
        let mut dummy = configuration(&world, "dummy", &[hook]);
        dummy["metadata"]["labels"] = json!({"conformance": world.ns});
        let made = world.create_global(hooks::VERSION, plural, &dummy).await?;
        let labels = json!({"conformance": world.ns});
        same("its labels", &made["metadata"]["labels"], &labels)?;
        world.api.delete(&world.global(VERSION, plural, name_of(&made))).await?;
    }
    Ok(())
}
