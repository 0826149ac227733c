use prost::Message;

use super::*;
use crate::registry::strategy::{ALL_VERBS, Scope, Strategy, Subresource};
use crate::schema::Gvk;

struct Plain;
impl Strategy for Plain {}

static POD: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "pods",
    subresources: &[Subresource::STATUS, Subresource::LOG, Subresource::EVICTION],
    verbs: ALL_VERBS,
    strategy: &Plain,
};
static DEPLOYMENT: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "deployments",
    subresources: &[Subresource::STATUS, Subresource::SCALE],
    verbs: ALL_VERBS,
    strategy: &Plain,
};

fn open_api() -> OpenApi {
    OpenApi::new(&[&POD, &DEPLOYMENT])
}

fn v3(path: &str) -> Value {
    serde_json::from_slice(&open_api().group_version(path).unwrap().plain()).unwrap()
}

fn v2() -> Value {
    serde_json::from_slice(&open_api().v2("application/json").plain()).unwrap()
}

/// Every `$ref` of a document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "$ref" => found.push(text),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_index_leads_to_documents_by_their_hash() {
    let open_api = open_api();
    let index: Value = serde_json::from_slice(&open_api.index().body).unwrap();
    for path in ["api/v1", "apis/apps/v1"] {
        let document = open_api.group_version(path).unwrap();
        let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", document.hash()));
        assert_eq!(document.etag(), format!("\"{}\"", document.hash()));
        assert!(document.gzip().len() * 4 < document.plain().len());
    }
    assert!(open_api.group_version("apis/nothing/v1").is_none());
}

#[test]
fn every_reference_leads_to_a_schema_and_none_has_siblings_in_v3() {
    for document in [v3("api/v1"), v3("apis/apps/v1"), v2()] {
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100);
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
    let document = v3("apis/apps/v1");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let alone = property.get("$ref").is_none() || property.as_object().unwrap().len() == 1;
            assert!(alone, "{name}.{field}");
        }
    }
}

#[test]
fn every_kind_of_the_server_is_described() {
    let kinds = crate::resources::KINDS;
    let document: Value =
        serde_json::from_slice(&OpenApi::new(kinds).v2("application/json").plain()).unwrap();
    for kind in kinds {
        let name = schemas::name_of(Gvk::new(kind.group, kind.version, kind.kind));
        let name = name.unwrap_or_else(|| panic!("{kind:?} is not in the table of types"));
        let described = &document["definitions"][&name];
        assert!(described["properties"]["metadata"].is_object(), "{name}");
        // Reviews are answered and not kept: there are none to list.
        assert_eq!(
            document["definitions"][format!("{name}List")].is_object(),
            kind.verbs.contains(&crate::request_info::Verb::List),
            "{name}"
        );
        // Options of streams are parameters, not documents.
        for sub in kind.subresources.iter().filter(|sub| !sub.is_streamed()) {
            let (group, version, sub) = discovery::subresource_kind(kind, sub);
            let name = schemas::name_of(Gvk::new(group, version, sub));
            assert!(document["definitions"][name.unwrap()].is_object(), "{sub}");
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn schemas_have_descriptions_and_what_kubernetes_adds() {
    let document = v3("apis/apps/v1");
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    assert_eq!(deployment.get("required"), None);
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(spec["required"], json!(["selector", "template"]));
    let strategy = &spec["properties"]["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    let reference = "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy";
    assert_eq!(strategy["allOf"], json!([{ "$ref": reference }]));
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    let selector = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"];
    assert_eq!(selector["x-kubernetes-map-type"], "atomic");
    let quantity = &schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["oneOf"], json!([{"type": "string"}, {"type": "number"}]));
    let port = &v2()["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!((&port["type"], &port["format"]), (&json!("string"), &json!("int-or-string")));
    for name in ["io.k8s.api.autoscaling.v1.Scale", "io.k8s.api.apps.v1.DeploymentList"] {
        assert!(schemas[name]["x-kubernetes-group-version-kind"].is_array(), "{name}");
    }
    for (name, schema) in schemas.as_object().unwrap() {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let said = property["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(said, "{name}.{field} has no description");
        }
    }
}

#[test]
fn a_patch_says_that_it_validates_fields() {
    for (document, style) in [(v3("apis/apps/v1"), Style::V3), (v2(), Style::V2)] {
        let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
        let item = &document["paths"][path];
        let patch = &item["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        assert_eq!(patch["x-kubernetes-action"], "patch");
        let parameters = patch["parameters"].as_array().unwrap();
        let named = |name: &str| parameters.iter().any(|p| p["name"] == name && p["in"] == "query");
        assert!(named("fieldValidation") && named("force"), "{style:?}");
        assert_eq!(item["parameters"][0]["name"], "name");
        let scale = &document["paths"][format!("{path}/scale")]["get"];
        assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    }
}

#[test]
fn operations_have_names_of_their_own() {
    let document = v2();
    let mut names: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(names.contains(&"listAppsV1DeploymentForAllNamespaces"));
    assert!(names.contains(&"createCoreV1NamespacedPodEviction"));
}

/// The parts of gnostic's messages that the next test reads back.
mod read {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Document {
        #[prost(string, tag = "1")]
        pub(super) swagger: String,
        #[prost(message, optional, tag = "8")]
        pub(super) paths: Option<Paths>,
        #[prost(message, optional, tag = "9")]
        pub(super) definitions: Option<Schemas>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Paths {
        #[prost(message, repeated, tag = "2")]
        pub(super) path: Vec<NamedPath>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct NamedPath {
        #[prost(string, tag = "1")]
        pub(super) name: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Schemas {
        #[prost(message, repeated, tag = "1")]
        pub(super) schema: Vec<NamedSchema>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct NamedSchema {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, optional, boxed, tag = "2")]
        pub(super) value: Option<Box<Schema>>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Schema {
        #[prost(string, tag = "1")]
        pub(super) reference: String,
        #[prost(string, tag = "4")]
        pub(super) description: String,
        #[prost(string, repeated, tag = "19")]
        pub(super) required: Vec<String>,
        #[prost(message, optional, tag = "22")]
        pub(super) kind: Option<Texts>,
        #[prost(message, optional, tag = "25")]
        pub(super) properties: Option<Schemas>,
        #[prost(message, repeated, tag = "31")]
        pub(super) extension: Vec<NamedAny>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Texts {
        #[prost(string, repeated, tag = "1")]
        pub(super) value: Vec<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct NamedAny {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<Any>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Any {
        #[prost(string, tag = "2")]
        pub(super) yaml: String,
    }
}

#[test]
fn the_protobuf_form_says_what_the_json_form_says() {
    let open_api = open_api();
    let packed = open_api.v2(V2_PROTOBUF);
    assert!(!packed.content_type().contains('@'), "Go cannot parse it");
    let document = read::Document::decode(packed.plain()).unwrap();
    let json = v2();
    assert_eq!(document.swagger, "2.0");
    let paths: Vec<String> = document.paths.unwrap().path.into_iter().map(|p| p.name).collect();
    let expected: Vec<String> = json["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(paths, expected);
    let definitions = document.definitions.unwrap().schema;
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    for named in &definitions {
        let schema = named.value.as_ref().unwrap();
        let expected = &json["definitions"][&named.name];
        assert_eq!(schema.description, expected["description"].as_str().unwrap_or_default());
        assert_eq!(json!(schema.required), *expected.get("required").unwrap_or(&json!([])));
        let properties = schema.properties.iter().flat_map(|p| &p.schema);
        for property in properties {
            let value = property.value.as_ref().unwrap();
            let expected = &expected["properties"][&property.name];
            assert_eq!(value.reference, expected["$ref"].as_str().unwrap_or_default());
            let kinds = value.kind.iter().flat_map(|k| &k.value).collect::<Vec<_>>();
            assert_eq!(json!(kinds.first()), expected["type"]);
            for extension in &value.extension {
                let said: Value =
                    serde_json::from_str(&extension.value.as_ref().unwrap().yaml).unwrap();
                assert_eq!(said, expected[&extension.name]);
            }
        }
    }
}
