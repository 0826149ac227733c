//! MutatingAdmissionPolicies: what they make of writes.

use super::*;

const FOLDER: &str = "/apis/admissionregistration.k8s.io/v1beta1";

fn policy(name: &str, extra: Value) -> Value {
    let mut spec = json!({
        "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["configmaps", "pods"] }] },
        "reinvocationPolicy": "Never",
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({ "metadata": { "name": name }, "spec": spec })
}

fn applied(expression: &str) -> Value {
    json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } })
}

fn patched(expression: &str) -> Value {
    json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } })
}

impl Cluster {
    /// A policy with one binding.
    async fn change_by(&self, policy: &Value, binding: Value) {
        let mut spec = json!({ "policyName": policy["metadata"]["name"] });
        spec.as_object_mut().unwrap().extend(binding.as_object().unwrap().clone());
        let binding = json!({ "metadata": policy["metadata"], "spec": spec });
        self.post(&format!("{FOLDER}/mutatingadmissionpolicies"), policy).await.ok();
        self.post(&format!("{FOLDER}/mutatingadmissionpolicybindings"), &binding).await.ok();
    }

    /// What comes of a create, once it is as it shall be: policies are known a moment later.
    async fn until_made(
        &self,
        path: &str,
        body: &Value,
        is_right: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let path = format!("{path}?dryRun=All");
        let mut last = None;
        for _ in 0..500 {
            let answer = self.post(&path, body).await;
            if is_right(&answer) {
                return answer;
            }
            last = Some(answer);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{last:?}");
    }
}

#[tokio::test]
async fn what_a_policy_applies_is_merged_as_the_type_says() {
    let cluster = Cluster::start().await;
    let policy = policy(
        "sidecar",
        json!({
            "matchConditions": [{ "name": "once",
                "expression": "!has(object.metadata.labels) || !('done' in object.metadata.labels)" }],
            "variables": [{ "name": "image", "expression": "object.spec.containers[0].image" }],
            "mutations": [applied(
                "Object{metadata: Object.metadata{labels: {'done': 'yes'}},
                    spec: Object.spec{containers: [
                        Object.spec.containers{name: 'c', args: ['x']},
                        Object.spec.containers{name: 'side', image: variables.image + '-side'}]}}",
            ).clone()],
        }),
    );
    let mut without_atomic = policy.clone();
    let text = policy["spec"]["mutations"][0]["applyConfiguration"]["expression"].as_str().unwrap();
    without_atomic["spec"]["mutations"] = json!([applied(&text.replace(", args: ['x']", ""))]);
    cluster.change_by(&without_atomic, json!({})).await;
    let is_done = |answer: &Answer| answer.body["metadata"]["labels"]["done"] == "yes";
    let made = cluster.until_made(PODS, &pod("p"), is_done).await.ok();
    let names: Vec<&str> = made["spec"]["containers"]
        .as_array()
        .expect("containers")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(names, ["c", "side"]);
    let side = &made["spec"]["containers"][1];
    assert_eq!(
        (&side["image"], &side["imagePullPolicy"]),
        (&json!("busybox-side"), &json!("Always"))
    );
    let mut marked = pod("p");
    marked["metadata"]["labels"] = json!({ "done": "no" });
    let made = cluster.post(&format!("{PODS}?dryRun=All"), &marked).await.ok();
    assert_eq!(made["metadata"]["labels"]["done"], "no", "the condition does not hold");
    let path = format!("{FOLDER}/mutatingadmissionpolicies/sidecar");
    let mut stored = cluster.get(&path).await.ok();
    stored["spec"]["mutations"] = policy["spec"]["mutations"].clone();
    cluster.put(&path, &stored).await.ok();
    let refused = cluster.until_made(PODS, &pod("p"), |answer| answer.code == 403).await;
    assert_eq!(
        refused.refusal(),
        (
            403,
            "Invalid",
            "policy 'sidecar' with binding 'sidecar' denied request: error applying \
          patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
          .spec.containers[0].args"
        )
    );
}

#[tokio::test]
async fn patches_are_made_one_after_the_other_with_the_parameters_of_the_binding() {
    let cluster = Cluster::start().await;
    let params = json!({ "metadata": { "name": "params" }, "data": { "value": "v" } });
    cluster.post("/api/v1/namespaces/kube-public/configmaps", &params).await.ok();
    let policy = policy(
        "patches",
        json!({
            "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
            "mutations": [
                patched("[JSONPatch{op: 'add', path: '/data', value: {'a': params.data.value}}]"),
                patched("[JSONPatch{op: 'copy', from: '/data/a', path: '/data/' +
                    jsonpatch.escapeKey('b') + string(size(object.data))}]"),
                patched("[JSONPatch{op: 'test', path: '/data/a', value: 'other'},
                    JSONPatch{op: 'remove', path: '/data'}]"),
            ],
        }),
    );
    let binding = json!({ "paramRef": { "name": "params", "namespace": "kube-public",
        "parameterNotFoundAction": "Deny" } });
    cluster.change_by(&policy, binding).await;
    let map = json!({ "metadata": { "name": "m" } });
    let is_made = |answer: &Answer| !answer.body["data"].is_null();
    let made = cluster.until_made(CONFIG_MAPS, &map, is_made).await.ok();
    assert_eq!(made["data"], json!({ "a": "v", "b1": "v" }), "a test that fails changes nothing");
}

#[tokio::test]
async fn a_policy_that_fails_refuses_the_write_or_is_ignored() {
    let cluster = Cluster::start().await;
    let broken = |policy_name: &str, failure: &str| {
        policy(
            policy_name,
            json!({
                "failurePolicy": failure,
                "mutations": [patched("[JSONPatch{op: 'add', path: '/data/x/y', value: object.none}]")],
            }),
        )
    };
    cluster.change_by(&broken("ignored", "Ignore"), json!({})).await;
    let map = json!({ "metadata": { "name": "m" } });
    for _ in 0..20 {
        cluster.post(&format!("{CONFIG_MAPS}?dryRun=All"), &map).await.ok();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    cluster.change_by(&broken("fatal", "Fail"), json!({})).await;
    let refused = cluster.until_made(CONFIG_MAPS, &map, |answer| answer.code == 403).await;
    let (_, reason, message) = refused.refusal();
    assert_eq!(reason, "Invalid");
    let start = "policy 'fatal' with binding 'fatal' denied request: ";
    assert!(message.starts_with(start) && message.contains("No such key: none"), "{message}");
    assert_eq!(refused.body["details"]["causes"][0]["message"], message);
}

#[tokio::test]
async fn who_wants_to_see_what_others_did_later_is_asked_again() {
    let cluster = Cluster::start().await;
    let count = "string(size(object.data))";
    let counts = |name: &str, again: &str, key: &str| {
        policy(
            name,
            json!({
                "reinvocationPolicy": again,
                "mutations": [applied(&format!("Object{{data: Object.data{{{key}: {count}}}}}"))],
            }),
        )
    };
    // By their names: the first is asked before the others.
    cluster.change_by(&counts("a", "IfNeeded", "first"), json!({})).await;
    cluster.change_by(&counts("b", "Never", "second"), json!({})).await;
    cluster.change_by(&counts("c", "IfNeeded", "third"), json!({})).await;
    let map = json!({ "metadata": { "name": "m" }, "data": { "x": "y" } });
    let is_whole = |answer: &Answer| answer.body["data"]["third"] == "4";
    let made = cluster.until_made(CONFIG_MAPS, &map, is_whole).await.ok();
    assert_eq!(made["data"], json!({ "x": "y", "first": "4", "second": "2", "third": "4" }));
}

#[tokio::test]
async fn custom_objects_are_changed_as_well_and_bindings_choose_namespaces() {
    let cluster = Cluster::start().await;
    let schema = json!({ "type": "object", "properties": { "spec": { "type": "object",
        "properties": { "size": { "type": "integer" } } } } });
    let definition = json!({
        "metadata": { "name": "things.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "things", "singular": "thing", "kind": "Thing" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": schema } }] },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.post(definitions, &definition).await.ok();
    let resource_rules = json!([{ "apiGroups": ["example.com"], "apiVersions": ["*"],
        "operations": ["*"], "resources": ["things"] }]);
    let policy = policy(
        "sizes",
        json!({
            "matchConstraints": { "resourceRules": resource_rules },
            "mutations": [applied("Object{spec: Object.spec{size: 3}}")],
        }),
    );
    let elsewhere = json!({ "matchResources": { "namespaceSelector": {
        "matchLabels": { "kubernetes.io/metadata.name": "default" } } } });
    cluster.change_by(&policy, elsewhere).await;
    let things = |namespace: &str| format!("/apis/example.com/v1/namespaces/{namespace}/things");
    let thing = json!({ "apiVersion": "example.com/v1", "kind": "Thing",
        "metadata": { "name": "t" } });
    let is_sized = |answer: &Answer| answer.body["spec"]["size"] == 3;
    cluster.until_made(&things("default"), &thing, is_sized).await.ok();
    let other = cluster.post(&things("kube-public"), &thing).await.ok();
    assert!(other["spec"].is_null());
}
