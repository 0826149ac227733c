//! [`Remote`]: what another server says of the version that it serves: its resources and its
//! OpenAPI documents.

use std::time::Duration;

use http::header::ACCEPT;
use serde_json::{Map, Value, json};

use super::check::{as_aggregator, document_path};
use super::{Aggregation, GroupVersion};
use crate::object::Object;
use crate::openapi::{JSON, Packed};
use crate::outbound::{in_full, read};
use crate::registry::Registry;

/// How long one document may take.
const LIMIT: Duration = Duration::from_secs(5);
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;\
                          as=APIGroupDiscoveryList";

/// A version that another server serves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remote {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// Whether the rest was true when the server was asked last.
    pub is_fresh: bool,
    /// Its resources, as aggregated discovery has them.
    pub resources: Vec<Value>,
    /// Its OpenAPI document of the third form.
    pub(crate) v3: Option<Packed>,
    /// What concerns it of the server's OpenAPI document of the second form.
    pub(crate) v2: Option<Value>,
}

impl Remote {
    /// One that has not been asked.
    pub(crate) fn unknown((group, version): &GroupVersion) -> Self {
        let (group, version) = (group.clone(), version.clone());
        Self { group, version, is_fresh: false, resources: Vec::new(), v3: None, v2: None }
    }
}

/// Asks the server of an APIService. Without OpenAPI documents a version can still be used.
pub(super) async fn ask(
    aggregation: &Aggregation,
    registry: &Registry,
    service: &Object,
) -> Result<Remote, String> {
    let asked = Asked { aggregation, registry, service };
    let name = super::group_version(service);
    let resources = match asked.get("/apis", AGGREGATED).await {
        Ok(all) if all["kind"] == "APIGroupDiscoveryList" => resources_of(&all, &name),
        _ => None,
    };
    let resources = match resources {
        Some(resources) => resources,
        None => from_classic(&asked.get(&document_path(service), JSON).await?, &name),
    };
    let path = document_path(service);
    let v3 = asked.get(&format!("/openapi/v3{path}"), JSON).await.ok();
    let v2 = asked.get("/openapi/v2", JSON).await.ok();
    Ok(Remote {
        is_fresh: true,
        resources,
        v3: v3.map(|document| Packed::new(document.to_string().as_bytes(), JSON)),
        v2: v2.map(|document| part_of(&document, &path)),
        ..Remote::unknown(&name)
    })
}

struct Asked<'a> {
    aggregation: &'a Aggregation,
    registry: &'a Registry,
    service: &'a Object,
}

impl Asked<'_> {
    async fn get(&self, path: &str, accept: &str) -> Result<Value, String> {
        let (client, mut url) = self.aggregation.reach(self.registry, self.service).await?;
        url.set_path(path);
        let request = client.get(url.clone()).headers(as_aggregator()).header(ACCEPT, accept);
        let reading = async {
            let answer = request.send().await.map_err(|error| in_full(&error))?;
            match answer.status() {
                code if code.is_success() => read(answer).await,
                code => Err(format!("bad status {}", code.as_u16())),
            }
        };
        let read = tokio::time::timeout(LIMIT, reading).await;
        let read = read.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")));
        let text = read.map_err(|why| format!("{url}: {why}"))?;
        serde_json::from_slice(&text).map_err(|error| format!("{url}: no JSON: {error}"))
    }
}

/// The resources of a version in an aggregated document; `None` where it is not there.
fn resources_of(all: &Value, (group, version): &GroupVersion) -> Option<Vec<Value>> {
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let groups = list(all, "items");
    let of_group = groups.iter().find(|one| one["metadata"]["name"] == group.as_str())?;
    let versions = list(of_group, "versions");
    let found = versions.iter().find(|one| one["version"] == version.as_str())?;
    Some(list(found, "resources"))
}

/// The resources of a classic document, each with its subresources, as an aggregated one has them.
fn from_classic(document: &Value, (group, version): &GroupVersion) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    let kind = |one: &Value| {
        let own = |field: &str, default: &str| match one[field].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => default.to_owned(),
        };
        json!({
            "group": own("group", group), "version": own("version", version), "kind": one["kind"],
        })
    };
    for one in document["resources"].as_array().into_iter().flatten() {
        let name = one["name"].as_str().unwrap_or_default();
        let Some((parent, part)) = name.split_once('/') else {
            let scope = if one["namespaced"] == true { "Namespaced" } else { "Cluster" };
            let mut resource = json!({
                "resource": name,
                "responseKind": kind(one),
                "scope": scope,
                "singularResource": one["singularName"],
                "verbs": one["verbs"],
            });
            for field in ["shortNames", "categories"] {
                if let Some(value) = one.get(field) {
                    resource[field] = value.clone();
                }
            }
            all.push(resource);
            continue;
        };
        if let Some(parent) = all.iter_mut().find(|known| known["resource"] == parent) {
            let part =
                json!({ "subresource": part, "responseKind": kind(one), "verbs": one["verbs"] });
            match parent["subresources"].as_array_mut() {
                Some(list) => list.push(part),
                None => parent["subresources"] = json!([part]),
            }
        }
    }
    all
}

/// The paths of a version in a document of the second form, and the definitions that they mention.
fn part_of(document: &Value, path: &str) -> Value {
    let is_own = |name: &str| {
        name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let all = document["paths"].as_object().into_iter().flatten();
    let paths: Map<String, Value> = all
        .filter(|(name, _)| is_own(name))
        .map(|(name, item)| (name.clone(), item.clone()))
        .collect();
    let mut definitions = Map::new();
    let mut wanted = Vec::new();
    paths.values().for_each(|item| mentioned(item, &mut wanted));
    // Kinds count though no path mentions them: clients look them up by their names.
    let (group, version) = path.trim_start_matches("/apis/").split_once('/').unwrap_or_default();
    for (name, schema) in document["definitions"].as_object().into_iter().flatten() {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        let is_own = |kind: &Value| kind["group"] == group && kind["version"] == version;
        if kinds.is_some_and(|kinds| kinds.iter().any(is_own)) {
            wanted.push(name.clone());
        }
    }
    while let Some(name) = wanted.pop() {
        if let Some(schema) = document["definitions"].get(&name)
            && !definitions.contains_key(&name)
        {
            mentioned(schema, &mut wanted);
            definitions.insert(name, schema.clone());
        }
    }
    json!({ "paths": paths, "definitions": definitions })
}

/// The names of the definitions that a value refers to.
fn mentioned(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref")
                && let Some(name) = reference.strip_prefix("#/definitions/")
            {
                names.push(name.to_owned());
            }
            map.values().for_each(|inner| mentioned(inner, names));
        }
        Value::Array(list) => list.iter().for_each(|inner| mentioned(inner, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> GroupVersion {
        ("wardle.example.com".into(), "v1alpha1".into())
    }

    #[test]
    fn a_classic_document_says_the_same_as_an_aggregated_one() {
        let classic = json!({ "resources": [
            { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
              "verbs": ["get"], "shortNames": ["fl"] },
            { "name": "flunders/scale", "singularName": "", "namespaced": true, "group":
              "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "update"] },
        ] });
        let resources = from_classic(&classic, &name());
        let of = |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
        let expected = json!([{
            "resource": "flunders",
            "responseKind": of("wardle.example.com", "v1alpha1", "Flunder"),
            "scope": "Namespaced",
            "singularResource": "flunder",
            "verbs": ["get"],
            "shortNames": ["fl"],
            "subresources": [{
                "subresource": "scale",
                "responseKind": of("autoscaling", "v1", "Scale"),
                "verbs": ["get", "update"],
            }],
        }]);
        assert_eq!(Value::from(resources.clone()), expected);
        let groups = json!({ "items": [{
            "metadata": { "name": "wardle.example.com" },
            "versions": [{ "version": "v1alpha1", "resources": resources }],
        }] });
        assert_eq!(resources_of(&groups, &name()), Some(resources));
        assert_eq!(resources_of(&json!({ "items": [] }), &name()), None);
    }

    #[test]
    fn of_a_document_only_what_concerns_the_version_is_taken() {
        let refer = |name: &str| json!({ "$ref": format!("#/definitions/{name}") });
        let document = json!({
            "paths": {
                "/apis/g.example.com/v1/things": { "get": { "schema": refer("Thing") } },
                "/apis/g.example.com/v1beta1/things": { "get": { "schema": refer("Old") } },
                "/apis/": {},
            },
            "definitions": {
                "Thing": { "properties": { "inner": refer("Inner") } },
                "Inner": { "properties": { "self": refer("Inner") } },
                "List": { "x-kubernetes-group-version-kind":
                    [{ "group": "g.example.com", "version": "v1", "kind": "ThingList" }] },
                "Old": {}, "Other": {},
            },
        });
        let part = part_of(&document, "/apis/g.example.com/v1");
        let keys =
            |field: &str| part[field].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("paths"), ["/apis/g.example.com/v1/things"]);
        assert_eq!(keys("definitions"), ["Inner", "List", "Thing"]);
    }
}
