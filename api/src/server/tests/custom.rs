//! Custom kinds: their definitions, and their objects with every verb.

use http::Method;

use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget", "shortNames": ["wd"] },
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": schema() },
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        { "name": "Size", "type": "integer", "jsonPath": ".spec.size" },
                        { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                    ],
                    "selectableFields": [{ "jsonPath": ".spec.color" }],
                },
                {
                    "name": "v1beta1", "served": true, "storage": false,
                    "schema": { "openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    } },
                },
            ],
        },
    })
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": { "type": "integer", "minimum": 1, "maximum": 9 },
                    "color": { "type": "string", "default": "red", "enum": ["red", "blue"] },
                    "replicas": { "type": "integer" },
                    "port": { "x-kubernetes-int-or-string": true },
                    "ports": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {
                                "name": { "type": "string" },
                                "number": { "type": "integer" },
                            },
                        },
                    },
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "replicas": { "type": "integer" },
                    "selector": { "type": "string" },
                },
            },
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": { "name": name }, "spec": spec,
    })
}

async fn defined() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.post(DEFINITIONS, &definition()).await.ok();
    cluster
}

#[tokio::test]
async fn a_definition_is_established_by_its_own_create_and_served_at_once() {
    let cluster = Cluster::start().await;
    let made = cluster.post(DEFINITIONS, &definition()).await.ok();
    assert_eq!(made["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(made["spec"]["names"]["singular"], "widget");
    assert_eq!(made["spec"]["conversion"], json!({ "strategy": "None" }));
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["status"]["acceptedNames"], made["spec"]["names"]);
    let conditions = made["status"]["conditions"].as_array().expect("a list");
    let said: Vec<[&str; 3]> = conditions
        .iter()
        .map(|one| ["type", "status", "reason"].map(|field| one[field].as_str().unwrap()))
        .collect();
    let wanted =
        [["NamesAccepted", "True", "NoConflicts"], ["Established", "True", "InitialNamesAccepted"]];
    assert_eq!(said, wanted);
    cluster.post(WIDGETS, &widget("a", json!({ "size": 1 }))).await.ok();
    // A server that has heard nothing of it yet looks.
    let other = cluster.another_server();
    assert_eq!(other.get(&format!("{WIDGETS}/a")).await.ok()["spec"]["size"], 1);
    assert_eq!(other.get("/apis/example.com/v1/gadgets").await.code, 404);
}

#[tokio::test]
async fn objects_of_a_custom_kind_are_defaulted_pruned_and_validated() {
    let cluster = defined().await;
    let spec = json!({ "size": 2, "port": "http", "more": 1, "replicas": null });
    let made = cluster.post(WIDGETS, &widget("a", spec.clone())).await.ok();
    assert_eq!(made["spec"], json!({ "size": 2, "port": "http", "color": "red" }));
    assert_eq!(made["metadata"]["generation"], 1);
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let refused = cluster.post(&strict, &widget("b", spec)).await;
    let message = "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: \
                   unknown field \"spec.more\"";
    assert_eq!(refused.refusal(), (400, "BadRequest", message));
    for (spec, why) in [
        (json!({}), "spec.size: Required value"),
        (
            json!({ "size": "x" }),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \
             \"string\"",
        ),
        (
            json!({ "size": 10 }),
            "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9",
        ),
        (
            json!({ "size": 1, "color": "green" }),
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        ),
        (
            json!({ "size": 1, "ports": [{ "name": "a" }, { "name": "a" }] }),
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
        ),
    ] {
        let refused = cluster.post(WIDGETS, &widget("b", spec)).await;
        let message = format!("Widget.example.com \"b\" is invalid: {why}");
        assert_eq!(refused.refusal(), (422, "Invalid", message.as_str()));
    }
    let refused = cluster.post(WIDGETS, &json!({ "metadata": { "name": "b" } })).await;
    assert!(refused.refusal().2.contains("Object 'Kind' is missing"), "{refused:?}");
}

#[tokio::test]
async fn a_schema_that_becomes_stricter_forgives_what_stays() {
    let cluster = defined().await;
    cluster.post(WIDGETS, &widget("a", json!({ "size": 9 }))).await.ok();
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut stricter = cluster.get(&path).await.ok();
    stricter["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["size"]["maximum"] = json!(5);
    cluster.put(&path, &stricter).await.ok();
    // Another server, so that what this one has in memory does not matter.
    let other = cluster.another_server();
    let own = format!("{WIDGETS}/a");
    let patched = other.merge(&own, &json!({ "spec": { "color": "blue" } })).await.ok();
    assert_eq!(patched["spec"]["color"], "blue");
    assert_eq!(other.merge(&own, &json!({ "spec": { "size": 8 } })).await.code, 422);
}

#[tokio::test]
async fn the_parts_of_a_custom_kind_are_written_on_their_own() {
    let cluster = defined().await;
    let mut body = widget("a", json!({ "size": 2, "replicas": 1 }));
    body["status"] = json!({ "replicas": 7 });
    let made = cluster.post(WIDGETS, &body).await.ok();
    assert_eq!(made.get("status"), None, "the status is not a creator's");
    let own = format!("{WIDGETS}/a");
    let status = json!({ "status": { "replicas": 1, "selector": "a=b" }, "spec": { "size": 5 } });
    let observed = cluster.merge(&format!("{own}/status"), &status).await.ok();
    assert_eq!(
        (&observed["status"]["replicas"], &observed["spec"]["size"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(observed["metadata"]["generation"], 1);
    let scale = cluster.get(&format!("{own}/scale")).await.ok();
    assert_eq!(scale["spec"]["replicas"], 1);
    assert_eq!(scale["status"], json!({ "replicas": 1, "selector": "a=b" }));
    let wanted = json!({ "spec": { "replicas": 3 } });
    cluster.merge(&format!("{own}/scale"), &wanted).await.ok();
    let scaled = cluster.get(&own).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 3);
    assert_eq!(scaled["metadata"]["generation"], 2, "a new spec is a new generation");
    let mut without = scaled.clone();
    without["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(cluster.put(&own, &without).await.code, 422, "an update must name its version");
}

#[tokio::test]
async fn every_served_version_shows_the_same_objects() {
    let cluster = defined().await;
    cluster.post(WIDGETS, &widget("a", json!({ "size": 2 }))).await.ok();
    let beta = "/apis/example.com/v1beta1/namespaces/default/widgets";
    let list = cluster.get(beta).await.ok();
    assert_eq!(list["kind"], "WidgetList");
    assert_eq!(list["apiVersion"], "example.com/v1beta1");
    let read = cluster.get(&format!("{beta}/a")).await.ok();
    assert_eq!(read["apiVersion"], "example.com/v1beta1");
    let more = json!({ "spec": { "free": { "x": 1 } } });
    let patched = cluster.merge(&format!("{beta}/a"), &more).await.ok();
    assert_eq!(patched["spec"]["free"]["x"], 1, "this version keeps what it does not know");
    let stored = cluster.get(&format!("{WIDGETS}/a")).await.ok();
    assert_eq!(stored["spec"], json!({ "size": 2, "color": "red" }), "that one does not show it");
}

#[tokio::test]
async fn custom_objects_are_selected_patched_and_applied_by_their_schema() {
    let cluster = defined().await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        cluster.post(WIDGETS, &widget(name, json!({ "size": 2, "color": color }))).await.ok();
    }
    let blue = cluster.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dblue")).await.ok();
    assert_eq!(blue["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(blue["items"][0]["metadata"]["name"], "b");
    let own = format!("{WIDGETS}/a");
    let media = "application/strategic-merge-patch+json";
    let refused = read(cluster.send(Method::PATCH, &own, media, b"{}".to_vec()).await).await;
    let message = "the body of the request was in an unknown format - accepted media types include: \
                   application/json-patch+json, application/merge-patch+json, \
                   application/apply-patch+yaml";
    assert_eq!(refused.refusal(), (415, "UnsupportedMediaType", message));
    let apply = |manager: &'static str, spec: Value| {
        let path = format!("{own}?fieldManager={manager}");
        let body = widget("a", spec).to_string().into_bytes();
        let cluster = &cluster;
        async move {
            let media = "application/apply-patch+yaml";
            read(cluster.send(Method::PATCH, &path, media, body).await).await
        }
    };
    apply("one", json!({ "ports": [{ "name": "x", "number": 1 }] })).await.ok();
    let both = apply("two", json!({ "ports": [{ "name": "y", "number": 2 }] })).await.ok();
    assert_eq!(both["spec"]["ports"].as_array().map(Vec::len), Some(2), "merged by its key");
    let conflict = apply("two", json!({ "ports": [{ "name": "x", "number": 3 }] })).await;
    let told =
        "Apply failed with 1 conflict: conflict with \"one\": .spec.ports[name=\"x\"].number";
    assert_eq!(conflict.refusal().2, told);
    let foreign = apply("two", json!({ "other": 1 })).await;
    assert!(
        foreign.refusal().2.contains(".spec.other: field not declared in schema"),
        "{foreign:?}"
    );
}

#[tokio::test]
async fn names_that_another_definition_has_are_refused_by_condition() {
    let cluster = defined().await;
    let mut second = definition();
    second["metadata"]["name"] = json!("gadgets.example.com");
    second["spec"]["names"] =
        json!({ "plural": "gadgets", "kind": "Widget", "shortNames": ["wd"] });
    let made = cluster.post(DEFINITIONS, &second).await.ok();
    let conditions = &made["status"]["conditions"];
    assert_eq!(conditions[0]["reason"], "ListKindConflict");
    assert_eq!(conditions[0]["message"], "\"WidgetList\" is already in use");
    assert_eq!(conditions[1]["status"], "False");
    assert_eq!(cluster.get("/apis/example.com/v1/gadgets").await.code, 404);
}

#[tokio::test]
async fn definitions_that_say_what_they_may_not_are_refused() {
    let cluster = Cluster::start().await;
    let spec = "spec.validation.openAPIV3Schema";
    let cases: [(&str, Value, String); 6] = [
        (
            "/spec/group",
            json!("example"),
            "metadata.name: Invalid value: \"widgets.example.com\": must be \
             spec.names.plural+\".\"+spec.group"
                .to_owned(),
        ),
        ("/spec/scope", json!("All"), "spec.scope: Unsupported value: \"All\"".to_owned()),
        (
            "/spec/versions/0/storage",
            json!(false),
            "must have exactly one version marked as storage version".to_owned(),
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size",
            json!({}),
            format!(
                "{spec}.properties[spec].properties[size].type: Required value: must not be \
                     empty for specified object fields"
            ),
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/color/default",
            json!("green"),
            format!(
                "{spec}.properties[spec].properties[color].default: Unsupported value: \
                     \"green\""
            ),
        ),
        (
            "/spec/conversion",
            json!({ "strategy": "Webhook" }),
            "spec.conversion.webhook.clientConfig: Required value: required when strategy is set to Webhook".to_owned(),
        ),
    ];
    for (place, value, why) in cases {
        let mut bad = definition();
        bad["spec"]["versions"].as_array_mut().unwrap().truncate(1);
        bad["spec"]["conversion"] = json!({ "strategy": "None" });
        *bad.pointer_mut(place).unwrap() = value;
        let refused = cluster.post(DEFINITIONS, &bad).await;
        assert_eq!(refused.code, 422, "{place}: {}", refused.body);
        assert!(refused.refusal().2.contains(&why), "{why}\n{}", refused.refusal().2);
    }
}

#[tokio::test]
async fn a_definition_that_goes_lets_nothing_new_come() {
    let cluster = defined().await;
    cluster.post(WIDGETS, &widget("a", json!({ "size": 2 }))).await.ok();
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let going = cluster.delete(&path, &Value::Null).await.ok();
    assert_eq!(
        going["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    assert_eq!(going["status"]["conditions"][2]["reason"], "InstanceDeletionPending");
    let refused = cluster.post(WIDGETS, &widget("b", json!({ "size": 2 }))).await;
    let message = "create not allowed while custom resource definition is terminating";
    assert_eq!(refused.refusal(), (405, "MethodNotAllowed", message));
    assert_eq!(cluster.get(&format!("{WIDGETS}/a")).await.code, 200);
    cluster.delete(&format!("{WIDGETS}/a"), &Value::Null).await.ok();
    let free = json!({ "metadata": { "finalizers": null } });
    cluster.merge(&path, &free).await.ok();
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_watch_of_a_custom_kind_ends_with_its_definition() {
    let cluster = defined().await;
    cluster.post(WIDGETS, &widget("a", json!({ "size": 2 }))).await.ok();
    described(&cluster, "/apis/example.com/v1", "widgets").await;
    let watched = cluster.send(Method::GET, &format!("{WIDGETS}?watch=true"), "", Vec::new()).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    cluster.delete(&path, &Value::Null).await.ok();
    cluster.delete(&format!("{WIDGETS}/a"), &Value::Null).await.ok();
    cluster.merge(&path, &json!({ "metadata": { "finalizers": null } })).await.ok();
    let lines =
        tokio::time::timeout(std::time::Duration::from_secs(10), watched.into_body().collect());
    let lines = lines.await.expect("it must end").expect("no error").to_bytes();
    let lines = String::from_utf8_lossy(&lines).into_owned();
    assert!(lines.contains("\"DELETED\""), "{lines}");
}

/// Waits until discovery and OpenAPI know the kind, as they do within a moment.
async fn described(cluster: &Cluster, path: &str, wanted: &str) -> Value {
    for _ in 0..500 {
        let found = cluster.get(path).await;
        if found.code == 200 && found.body.to_string().contains(wanted) {
            return found.body;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{path} does not say {wanted}");
}

#[tokio::test]
async fn custom_kinds_are_in_discovery_and_openapi_and_have_their_columns() {
    let cluster = defined().await;
    let groups = described(&cluster, "/apis", "example.com").await;
    let groups = groups["groups"].as_array().unwrap();
    let group = groups.iter().find(|group| group["name"] == "example.com").unwrap();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let list = described(&cluster, "/apis/example.com/v1", "widgets").await;
    let names: Vec<&str> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["wd"]));
    let open = described(&cluster, "/openapi/v3/apis/example.com/v1", "Widget").await;
    let schema = &open["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{ "group": "example.com", "kind": "Widget", "version": "v1" }])
    );
    assert!(schema["properties"]["kind"]["description"].is_string(), "{schema}");
    let own = &open["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"];
    let patches = own["patch"]["requestBody"]["content"].as_object().unwrap();
    assert!(!patches.contains_key("application/strategic-merge-patch+json"), "kubectl goes by it");
    let old = described(&cluster, "/openapi/v2", "com.example.v1.Widget").await;
    assert!(old["definitions"]["com.example.v1.WidgetList"].is_object());
    cluster.post(WIDGETS, &widget("a", json!({ "size": 2 }))).await.ok();
    let request = axum::http::Request::builder()
        .uri(WIDGETS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .extension(Arc::new(User::authenticated("admin", &[MASTERS])))
        .body(Body::empty())
        .unwrap();
    let table = read(cluster.answer(request).await).await.ok();
    let headings: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(headings, ["Name", "Size", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], 2);
}

#[tokio::test]
async fn rules_of_a_schema_judge_objects_and_their_changes() {
    let cluster = Cluster::start().await;
    let mut ruled = definition();
    ruled["spec"]["versions"].as_array_mut().unwrap().truncate(1);
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let node = ruled.pointer_mut(spec).unwrap();
    node["x-kubernetes-validations"] = json!([
        { "rule": "self.size < 5 || self.color == 'blue'", "message": "large ones are blue" },
        {
            "rule": "!has(self.replicas) || self.replicas <= self.size",
            "messageExpression": "'at most ' + string(self.size)",
            "fieldPath": ".replicas",
            "reason": "FieldValueForbidden",
        },
    ]);
    node["properties"]["color"]["x-kubernetes-validations"] =
        json!([{ "rule": "self == oldSelf", "message": "a color stays" }]);
    let mut wrong = ruled.clone();
    wrong.pointer_mut(spec).unwrap()["x-kubernetes-validations"][0]["rule"] = json!("self.size <");
    let refused = cluster.post(DEFINITIONS, &wrong).await;
    let place = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    assert!(refused.refusal().2.contains(&format!("{place}: Invalid value")), "{refused:?}");
    cluster.post(DEFINITIONS, &ruled).await.ok();
    for (spec, why) in [
        (json!({ "size": 5 }), "spec: Invalid value: \"object\": large ones are blue"),
        (json!({ "size": 2, "replicas": 3 }), "spec.replicas: Forbidden: at most 2"),
    ] {
        let refused = cluster.post(WIDGETS, &widget("a", spec)).await;
        let message = format!("Widget.example.com \"a\" is invalid: {why}");
        assert_eq!(refused.refusal(), (422, "Invalid", message.as_str()));
    }
    cluster.post(WIDGETS, &widget("a", json!({ "size": 4 }))).await.ok();
    let own = format!("{WIDGETS}/a");
    let refused = cluster.merge(&own, &json!({ "spec": { "color": "blue" } })).await;
    let why = "spec.color: Invalid value: \"string\": a color stays";
    assert!(refused.refusal().2.ends_with(why), "{refused:?}");
    cluster.merge(&own, &json!({ "spec": { "size": 3 } })).await.ok();
}
