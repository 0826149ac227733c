//! Webhooks: who outside is asked about writes, and what comes of the answer.

mod server;

use http::Method;

use super::*;
use server::{Hook, allowed, denied, patched};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// A webhook about creating and updating ConfigMaps.
fn webhook(hook: &Hook, extra: Value) -> Value {
    let mut webhook = json!({
        "name": "hook.example.com",
        "clientConfig": hook.config(),
        "rules": [{
            "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps"],
        }],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    });
    let extra = extra.as_object().expect("an object").clone();
    webhook.as_object_mut().expect("an object").extend(extra);
    webhook
}

impl Cluster {
    /// Registers webhooks, and waits until they are known.
    async fn register(&self, path: &str, name: &str, hook: &Hook, webhooks: &[Value]) -> Value {
        let marker = webhook(
            hook,
            json!({
                "name": "marker.example.com",
                "clientConfig": hook.config_at("/marker"),
                "objectSelector": { "matchLabels": { "marker": name } },
                "namespaceSelector": {},
            }),
        );
        // First: it must be heard whatever the others say.
        let mut all = vec![marker];
        all.extend_from_slice(webhooks);
        let body =
            json!({ "metadata": { "name": name, "labels": { "of": name } }, "webhooks": all });
        let made = self.post(path, &body).await.ok();
        self.known(name).await;
        made
    }

    async fn known(&self, name: &str) {
        let marked = json!({ "metadata": { "name": "marked", "labels": { "marker": name } } });
        let path = format!("{CONFIG_MAPS}?dryRun=All");
        for _ in 0..1000 {
            let answer = self.post(&path, &marked).await;
            if answer.code == 400 && answer.refusal().2.contains("marker") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("a configuration must be known soon");
    }
}

fn map(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "data": { "a": "1" } })
}

#[tokio::test]
async fn a_webhook_is_told_the_write_and_can_refuse_it() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(|request| {
        if request["object"]["metadata"]["name"] == "bad" {
            denied("no bad ones")
        } else {
            allowed()
        }
    })
    .await;
    cluster.register(VALIDATING, "v", &hook, &[webhook(&hook, json!({}))]).await;
    cluster.post(CONFIG_MAPS, &map("good")).await.ok();
    let refused = cluster.post(CONFIG_MAPS, &map("bad")).await;
    assert_eq!(
        refused.refusal(),
        (400, "", "admission webhook \"hook.example.com\" denied the request: no bad ones")
    );
    let told = hook.last("bad");
    assert_eq!(told["operation"], "CREATE");
    assert_eq!(told["kind"], json!({ "group": "", "version": "v1", "kind": "ConfigMap" }));
    assert_eq!(told["requestKind"], told["kind"]);
    let resource = json!({ "group": "", "version": "v1", "resource": "configmaps" });
    assert_eq!((&told["resource"], &told["requestResource"]), (&resource, &resource));
    assert_eq!((&told["namespace"], &told["dryRun"]), (&json!("default"), &json!(false)));
    assert_eq!(told["userInfo"]["username"], "admin");
    assert_eq!(told["oldObject"], Value::Null);
    assert_eq!(told["options"]["kind"], "CreateOptions");
    // An update shows both states.
    let put = cluster.merge(&format!("{CONFIG_MAPS}/good"), &json!({ "data": { "a": "2" } })).await;
    put.ok();
    let told = hook.last("good");
    assert_eq!((&told["operation"], &told["object"]["data"]["a"]), (&json!("UPDATE"), &json!("2")));
    assert_eq!(told["oldObject"]["data"]["a"], "1");
}

#[tokio::test]
async fn what_a_webhook_patches_is_stored_with_its_defaults() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(|_| {
        patched(&json!([{ "op": "add", "path": "/spec/initContainers",
            "value": [{ "name": "added", "image": "i", "resources": {} }] }]))
    })
    .await;
    let rules = json!([{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods"] }]);
    cluster.register(MUTATING, "m", &hook, &[webhook(&hook, json!({ "rules": rules }))]).await;
    let made = cluster.post(PODS, &pod("p")).await.ok();
    let added = &made["spec"]["initContainers"][0];
    assert_eq!(added["imagePullPolicy"], "Always");
    assert_eq!(added["terminationMessagePolicy"], "File");
}

#[tokio::test]
async fn configurations_take_effect_until_they_are_changed_or_deleted() {
    let cluster = Cluster::start().await;
    let hook =
        Hook::start(|_| patched(&json!([{ "op": "add", "path": "/data/hooked", "value": "yes" }])))
            .await;
    cluster.register(MUTATING, "m", &hook, &[webhook(&hook, json!({}))]).await;
    let hooked = |value: Value| value["data"]["hooked"] == "yes";
    assert!(hooked(cluster.post(CONFIG_MAPS, &map("a")).await.ok()));
    let rule = json!([{ "op": "replace", "path": "/webhooks/1/rules/0/operations",
        "value": ["DELETE"] }]);
    let media = "application/json-patch+json";
    let path = format!("{MUTATING}/m");
    read(cluster.send(Method::PATCH, &path, media, rule.to_string().into_bytes()).await).await.ok();
    let mut names = (0..1000).map(|turn| format!("b{turn}"));
    while hooked(cluster.post(CONFIG_MAPS, &map(&names.next().expect("soon"))).await.ok()) {}
    let list = cluster.get(&format!("{MUTATING}?labelSelector=of=m")).await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let path = format!("{MUTATING}?labelSelector=of=m");
    cluster.delete(&path, &Value::Null).await.ok();
    assert_eq!(cluster.get(&format!("{MUTATING}/m")).await.code, 404);
}

#[tokio::test]
async fn selectors_conditions_and_namespaces_choose_what_a_webhook_is_asked_about() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(|_| denied("chosen")).await;
    let chosen = webhook(
        &hook,
        json!({
            "matchConditions": [
                { "name": "not-skipped", "expression": "object.metadata.name != 'skip-me'" },
                { "name": "who", "expression": "request.userInfo.username == 'admin'" },
            ],
            "objectSelector": { "matchExpressions": [{ "key": "free", "operator": "DoesNotExist" }] },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "default" } },
        }),
    );
    cluster.register(VALIDATING, "v", &hook, &[chosen]).await;
    assert_eq!(cluster.post(CONFIG_MAPS, &map("a")).await.code, 400);
    cluster.post(CONFIG_MAPS, &map("skip-me")).await.ok();
    cluster.config_map("free", json!({ "free": "yes" })).await;
    cluster.post("/api/v1/namespaces/kube-public/configmaps", &map("a")).await.ok();
    for (text, code) in [("... [] bad expression", 422), ("object.x == ", 422), ("nobody.x", 422)] {
        let conditions = json!([{ "name": "invalid", "expression": text }]);
        let bad = webhook(&hook, json!({ "matchConditions": conditions }));
        let body = json!({ "metadata": { "name": "bad" }, "webhooks": [bad] });
        let refused = cluster.post(VALIDATING, &body).await;
        assert_eq!(refused.code, code);
        assert!(refused.refusal().2.contains("compilation failed"), "{refused:?}");
    }
}

#[tokio::test]
async fn webhooks_are_not_asked_about_webhook_configurations() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(|_| denied("all")).await;
    let rules = json!([{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": ["*/*"] }]);
    let all = webhook(&hook, json!({ "rules": rules }));
    cluster.register(VALIDATING, "v", &hook, std::slice::from_ref(&all)).await;
    cluster.register(MUTATING, "m", &hook, &[all]).await;
    for path in [format!("{VALIDATING}/v"), format!("{MUTATING}/m")] {
        cluster.delete(&path, &Value::Null).await.ok();
    }
}

#[tokio::test]
async fn one_that_hangs_is_waited_for_as_long_as_it_says_and_holds_up_nobody_else() {
    let cluster = Cluster::with(ApiConfig {
        max_reads_in_flight: 0,
        max_writes_in_flight: 1,
        ..ApiConfig::default()
    })
    .await;
    let hook = Hook::start(|_| allowed()).await;
    let hangs = |name: &str, policy: &str| {
        let only = json!({ "matchLabels": { "hang": name } });
        webhook(
            &hook,
            json!({
                "clientConfig": hook.config_at("/hang"), "timeoutSeconds": 1, "failurePolicy": policy,
                "name": format!("{name}.example.com"), "objectSelector": only,
            }),
        )
    };
    cluster
        .register(VALIDATING, "v", &hook, &[hangs("fail", "Fail"), hangs("ignore", "Ignore")])
        .await;
    let labelled = |name: &str| json!({ "metadata": { "name": name, "labels": { "hang": name } } });
    let body = labelled("fail");
    let slow = async {
        let answer = cluster.post(CONFIG_MAPS, &body).await;
        assert_eq!(answer.code, 500);
        let text = answer.refusal().2.to_owned();
        assert!(text.starts_with("Internal error occurred: failed calling webhook \"fail.example.com\": failed to call webhook: Post \"https://127.0.0.1:"), "{text}");
        assert!(text.ends_with("/hang?timeout=1s\": context deadline exceeded"), "{text}");
    };
    let other = async {
        hook.hanging().await;
        cluster.post(CONFIG_MAPS, &map("meanwhile")).await.ok();
        assert_eq!(hook.count_hanging(), 1, "the other still waits");
    };
    tokio::join!(slow, other);
    cluster.post(CONFIG_MAPS, &labelled("ignore")).await.ok();
}

#[tokio::test]
async fn one_that_cannot_be_reached_closes_unless_it_is_to_be_ignored() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(|_| allowed()).await;
    let nowhere = json!({ "service": { "namespace": "default", "name": "nobody", "path": "/x" },
        "caBundle": hook.config()["caBundle"] });
    let closed = webhook(&hook, json!({ "clientConfig": nowhere }));
    cluster.register(VALIDATING, "v", &hook, &[closed]).await;
    let refused = cluster.post(CONFIG_MAPS, &map("a")).await;
    assert_eq!(
        refused.refusal(),
        (
            500,
            "InternalError",
            "Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: Post \"https://nobody.default.svc:443/x?timeout=10s\": service \"nobody\" not found"
        )
    );
}

#[tokio::test]
async fn a_service_is_called_at_its_endpoints_by_its_name() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(|_| denied("by service")).await;
    let service = json!({ "metadata": { "name": "hooks" },
        "spec": { "ports": [{ "name": "https", "port": 8443 }] } });
    cluster.post("/api/v1/namespaces/default/services", &service).await.ok();
    // Loopback addresses are not taken for endpoints: the store is told past the API.
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "hooks-1", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "hooks" } },
        "ports": [{ "name": "https", "port": hook.port() }],
        "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
    });
    let put = kontiki_storage::kv::Op::put(
        "/registry/endpointslices/default/hooks-1".to_owned(),
        slice.to_string().into_bytes(),
    );
    let txn = kontiki_storage::kv::Txn { success: vec![put], ..Default::default() };
    cluster.kv.txn(kontiki_storage::kv::Proposal { txn, fence: None }).await.expect("a put");
    let config = json!({ "caBundle": hook.config()["caBundle"],
        "service": { "namespace": "default", "name": "hooks", "port": 8443, "path": "/x" } });
    cluster
        .register(VALIDATING, "v", &hook, &[webhook(&hook, json!({ "clientConfig": config }))])
        .await;
    let refused = cluster.post(CONFIG_MAPS, &map("a")).await;
    assert!(refused.refusal().2.ends_with("denied the request: by service"), "{refused:?}");
}

#[tokio::test]
async fn one_that_wants_it_is_asked_again_after_others_changed_the_object() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(|request| {
        let count = request["object"]["data"]["count"].as_str().unwrap_or("0").len();
        patched(&json!([{ "op": "add", "path": "/data/count", "value": "x".repeat(count + 1) }]))
    })
    .await;
    let named = |name: &str, policy: &str| {
        webhook(&hook, json!({ "name": name, "reinvocationPolicy": policy }))
    };
    let all = [named("a.example.com", "IfNeeded"), named("b.example.com", "Never")];
    cluster.register(MUTATING, "m", &hook, &all).await;
    let made = cluster.post(CONFIG_MAPS, &map("a")).await.ok();
    // "0" is one character long: a, b, and a again.
    assert_eq!(made["data"]["count"], "xxxx");
}

#[tokio::test]
async fn deletes_scales_and_connections_are_asked_about() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(|request| match request["subResource"].as_str() {
        Some("attach") => denied("attaching to pod 'p' is not allowed"),
        Some("scale") if request["object"]["spec"]["replicas"] == 7 => denied("not seven"),
        None if request["operation"] == "DELETE" && request["name"] == "kept" => denied("keep it"),
        _ => allowed(),
    })
    .await;
    let rules = json!([{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": ["configmaps", "pods/attach", "deployments/scale"] }]);
    cluster.register(VALIDATING, "v", &hook, &[webhook(&hook, json!({ "rules": rules }))]).await;
    cluster.post(CONFIG_MAPS, &map("kept")).await.ok();
    let refused = cluster.delete(&format!("{CONFIG_MAPS}/kept"), &Value::Null).await;
    assert!(refused.refusal().2.ends_with("denied the request: keep it"), "{refused:?}");
    let told = hook.last("kept");
    assert_eq!((&told["object"], &told["oldObject"]["data"]["a"]), (&Value::Null, &json!("1")));
    cluster.post(PODS, &pod("p")).await.ok();
    let refused =
        cluster.post(&format!("{PODS}/p/attach?stdin=true&container=c"), &Value::Null).await;
    assert!(refused.refusal().2.contains("attaching to pod 'p' is not allowed"), "{refused:?}");
    let told = hook.last("p");
    assert_eq!(told["operation"], "CONNECT");
    assert_eq!(told["kind"]["kind"], "PodAttachOptions");
    assert_eq!(told["object"]["stdin"], true);
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({ "metadata": { "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let deployment = json!({ "metadata": { "name": "d" }, "spec": {
        "selector": { "matchLabels": { "a": "b" } }, "template": template } });
    cluster.post(deployments, &deployment).await.ok();
    let scale = |replicas: i64| json!({ "spec": { "replicas": replicas } });
    let path = format!("{deployments}/d/scale");
    assert!(cluster.merge(&path, &scale(7)).await.refusal().2.contains("not seven"));
    assert_eq!(cluster.merge(&path, &scale(3)).await.ok()["spec"]["replicas"], 3);
    assert_eq!(hook.last("d")["kind"]["kind"], "Scale");
}

/// A definition of things with two versions; in v2, `host` and `port` stand for v1's `hostPort`.
fn things(conversion: Value) -> Value {
    let text = json!({ "type": "string" });
    let schema =
        |fields: Value| json!({ "openAPIV3Schema": { "type": "object", "properties": fields } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "things", "kind": "Thing" },
            "conversion": conversion,
            "versions": [
                { "name": "v1", "served": true, "storage": true,
                  "schema": schema(json!({ "hostPort": text, "added": text })) },
                { "name": "v2", "served": true, "storage": false,
                  "schema": schema(json!({ "host": text, "port": text, "added": text })) },
            ],
        },
    })
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn thing(version: &str, name: &str, fields: Value) -> Value {
    let mut thing = json!({ "apiVersion": format!("example.com/{version}"), "kind": "Thing",
        "metadata": { "name": name } });
    thing.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    thing
}

fn path(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/default/things")
}

/// What a conversion webhook does with a review's request.
fn convert(request: &Value) -> Value {
    let to = request["desiredAPIVersion"].as_str().unwrap();
    let converted = request["objects"].as_array().unwrap().iter().map(|object| {
        let mut object = object.clone();
        let map = object.as_object_mut().unwrap();
        map.insert("apiVersion".into(), to.into());
        if to.ends_with("/v2") {
            let both = map.remove("hostPort").unwrap_or_default();
            let both = both.as_str().unwrap_or_default().to_owned();
            let (host, port) = both.split_once(':').unwrap_or((&both, ""));
            map.insert("host".into(), host.into());
            map.insert("port".into(), port.into());
        } else {
            let text =
                |value: Option<Value>| value.unwrap_or_default().as_str().unwrap_or("").to_owned();
            let (host, port) = (text(map.remove("host")), text(map.remove("port")));
            map.insert("hostPort".into(), format!("{host}:{port}").into());
        }
        object
    });
    let converted: Vec<Value> = converted.collect();
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
        "uid": request["uid"], "result": { "status": "Success" }, "convertedObjects": converted,
    } })
}

#[tokio::test]
async fn objects_are_stored_in_one_version_and_shown_in_others_by_the_conversion_webhook() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(convert).await;
    let conversion = json!({ "strategy": "Webhook", "webhook": {
        "clientConfig": hook.config_at("/convert"), "conversionReviewVersions": ["v1"] } });
    cluster.post(DEFINITIONS, &things(conversion)).await.ok();
    let made = thing("v1", "a", json!({ "hostPort": "a:1" }));
    cluster.post(&path("v1"), &made).await.ok();
    let made = thing("v2", "b", json!({ "host": "b", "port": "2" }));
    let made = cluster.post(&path("v2"), &made).await.ok();
    assert_eq!((&made["host"], &made["apiVersion"]), (&json!("b"), &json!("example.com/v2")));
    // One list, objects of both, which say what they are, as those of built-in kinds do not.
    let list = cluster.get(&path("v2")).await.ok();
    let item = &list["items"][0];
    assert_eq!((&item["kind"], &item["apiVersion"]), (&json!("Thing"), &json!("example.com/v2")));
    let hosts: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|i| i["host"].clone()).collect();
    assert_eq!(hosts, ["a", "b"]);
    let stored = cluster.get(&format!("{}/b", path("v1"))).await.ok();
    assert_eq!((&stored["hostPort"], &stored.get("host")), (&json!("b:2"), &None));
    // A change in one version is one of the other's.
    let patch = json!({ "port": "3" });
    let changed = cluster.merge(&format!("{}/a", path("v2")), &patch).await.ok();
    assert_eq!((&changed["host"], &changed["port"]), (&json!("a"), &json!("3")));
    assert_eq!(cluster.get(&format!("{}/a", path("v1"))).await.ok()["hostPort"], "a:3");
    cluster.delete(&format!("{}/a", path("v2")), &Value::Null).await.ok();
    // What the webhook cannot do is refused, in words.
    drop(hook);
}

#[tokio::test]
async fn objects_of_a_definition_that_goes_are_deleted_though_their_webhook_is_gone() {
    let cluster = Cluster::start().await;
    let hook = Hook::start(convert).await;
    let mut nowhere = hook.config_at("/convert");
    drop(hook);
    nowhere["url"] = json!("https://127.0.0.1:1/convert");
    let conversion = json!({ "strategy": "Webhook", "webhook": {
        "clientConfig": nowhere, "conversionReviewVersions": ["v1"] } });
    cluster.post(DEFINITIONS, &things(conversion)).await.ok();
    cluster.post(&path("v1"), &thing("v1", "a", json!({ "hostPort": "a:1" }))).await.ok();
    assert_eq!(cluster.get(&path("v2")).await.code, 500);
    cluster.delete(&format!("{DEFINITIONS}/things.example.com"), &Value::Null).await.ok();
    for _ in 0..500 {
        let list = cluster.get(&path("v2")).await;
        if list.code == 200 {
            let list = list.ok();
            assert_eq!(list["items"][0]["apiVersion"], "example.com/v2", "{list}");
            cluster.delete(&format!("{}/a", path("v2")), &Value::Null).await.ok();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("its objects cannot be listed");
}

#[tokio::test]
async fn custom_objects_are_judged_in_the_version_that_the_rules_name_and_pruned() {
    let cluster = Cluster::start().await;
    cluster.post(DEFINITIONS, &things(json!({ "strategy": "None" }))).await.ok();
    let hook = Hook::start(|request| {
        if request["name"] == "bad" {
            return denied("no bad things");
        }
        patched(&json!([
            { "op": "add", "path": "/added", "value": "yes" },
            { "op": "add", "path": "/unknown", "value": "pruned" },
        ]))
    })
    .await;
    let rules = json!([{ "operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"],
        "resources": ["things"] }]);
    cluster.register(MUTATING, "m", &hook, &[webhook(&hook, json!({ "rules": rules }))]).await;
    let made = cluster.post(&path("v2"), &thing("v2", "a", json!({ "host": "h" }))).await.ok();
    assert_eq!((&made["added"], made.get("unknown")), (&json!("yes"), None));
    assert_eq!(made["apiVersion"], "example.com/v2");
    let told = hook.last("a");
    assert_eq!(
        (&told["kind"]["version"], &told["requestKind"]["version"]),
        (&json!("v1"), &json!("v2"))
    );
    assert_eq!(told["object"]["apiVersion"], "example.com/v1");
    let refused = cluster.post(&path("v1"), &thing("v1", "bad", json!({}))).await;
    assert!(refused.refusal().2.ends_with("denied the request: no bad things"), "{refused:?}");
}
