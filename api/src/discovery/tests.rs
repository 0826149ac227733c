use serde_json::json;

use super::*;
use crate::registry::strategy::{ALL_VERBS, Scope, Strategy};

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
static NODE: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "minions",
    subresources: &[],
    ..copy(&POD)
};
static DEPLOYMENT: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    storage: "deployments",
    subresources: &[Subresource::STATUS, Subresource::SCALE],
    ..copy(&POD)
};

const fn copy(kind: &Kind) -> Kind {
    Kind {
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
        plural: kind.plural,
        singular: kind.singular,
        short_names: kind.short_names,
        categories: kind.categories,
        scope: kind.scope,
        storage: kind.storage,
        subresources: kind.subresources,
        verbs: kind.verbs,
        strategy: kind.strategy,
    }
}

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                  application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                  application/json";

fn discovery() -> Discovery {
    let kinds = [&POD, &NODE, &DEPLOYMENT];
    Discovery::new(&kinds, &kinds, &Known::default(), "10.0.0.1:6443")
}

fn read(path: Path<'_>, accept: &str) -> Value {
    let discovery = discovery();
    serde_json::from_slice(&discovery.document(path, accept).unwrap().body).unwrap()
}

#[test]
fn accept_chooses_the_form() {
    assert_eq!(Form::of_accept(V2), Form::V2);
    assert_eq!(Form::of_accept(V2.split_once(',').unwrap().1), Form::V2Beta1);
    for classic in ["", "*/*", "application/json", "application/json, */*"] {
        assert_eq!(Form::of_accept(classic), Form::Classic, "{classic}");
    }
    let unknown = "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList";
    assert_eq!(Form::of_accept(unknown), Form::Classic);
    assert_eq!(Form::of_accept(&format!("{unknown},{V2}")), Form::V2);
}

#[test]
fn the_classic_form_lists_groups_and_versions() {
    assert_eq!(
        read(Path::Api, ""),
        json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs":
               [{"clientCIDR": "0.0.0.0/0", "serverAddress": "10.0.0.1:6443"}]})
    );
    let apps = read(Path::Group("apps"), "");
    assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
    assert_eq!(read(Path::Apis, "")["groups"], json!([apps]));
    let discovery = discovery();
    for path in [Path::Group("nothing"), Path::GroupVersion("apps", "v2"), Path::Group("")] {
        assert!(discovery.document(path, "").is_none(), "{path:?}");
    }
}

#[test]
fn the_classic_form_lists_resources_with_their_subresources() {
    let core = read(Path::GroupVersion("", "v1"), V2);
    assert_eq!(core["groupVersion"], "v1");
    let names: Vec<&str> =
        core["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["nodes", "pods", "pods/eviction", "pods/log", "pods/status"]);
    let apps = read(Path::GroupVersion("apps", "v1"), "");
    assert_eq!(
        apps["resources"][1],
        json!({"name": "deployments/scale", "singularName": "", "namespaced": true,
               "group": "autoscaling", "version": "v1", "kind": "Scale",
               "verbs": ["get", "patch", "update"]})
    );
    assert_eq!(apps["resources"][0]["shortNames"], json!(["po"]));
}

#[test]
fn a_resource_tells_the_hash_of_the_version_it_is_stored_in() {
    static NEWER: Kind = Kind { group: "apps", version: "v2", ..copy(&DEPLOYMENT) };
    let kinds = [&POD, &DEPLOYMENT, &NEWER];
    let discovery = Discovery::new(&kinds, &[&POD, &DEPLOYMENT], &Known::default(), "");
    let hash = |group, version, index: usize| {
        let document = discovery.document(Path::GroupVersion(group, version), "").unwrap();
        let list: Value = serde_json::from_slice(&document.body).unwrap();
        list["resources"][index]["storageVersionHash"].clone()
    };
    // These are what clients of other clusters see.
    assert_eq!(hash("", "v1", 0), "xPOwRZ+Yhw8=");
    assert_eq!(hash("apps", "v1", 0), "8aSe+NMegvE=");
    assert_eq!(hash("apps", "v1", 1), Value::Null, "parts of it have none");
    assert_eq!(hash("apps", "v2", 0), "8aSe+NMegvE=");
}

#[test]
fn the_aggregated_form_says_all_at_once() {
    for (accept, version) in [(V2, "v2"), (V2.split_once(',').unwrap().1, "v2beta1")] {
        let core = read(Path::Api, accept);
        assert_eq!(core["apiVersion"], format!("apidiscovery.k8s.io/{version}"));
        let resources = &core["items"][0]["versions"][0]["resources"];
        assert_eq!(resources[1]["resource"], "pods");
        assert_eq!(
            resources[1]["subresources"][0],
            json!({"subresource": "eviction", "verbs": ["create"],
                   "responseKind": {"group": "policy", "version": "v1", "kind": "Eviction"}})
        );
        assert_eq!(resources[0]["scope"], "Cluster");
        let named = read(Path::Apis, accept);
        assert_eq!(named["items"][0]["metadata"]["name"], "apps");
        assert_eq!(named["items"][0]["versions"][0]["freshness"], "Current");
    }
}

#[test]
fn a_document_names_its_form_and_has_a_tag_of_its_own() {
    let discovery = discovery();
    let v2 = discovery.document(Path::Api, V2).unwrap();
    assert_eq!(v2.content_type, V2.split(',').next().unwrap());
    let classic = discovery.document(Path::Api, "").unwrap();
    assert_eq!(classic.content_type, "application/json");
    assert_ne!(v2.etag, classic.etag);
    assert!(v2.etag.starts_with('"') && v2.etag.ends_with('"') && v2.etag.len() == 66);
}

#[test]
fn what_another_server_serves_takes_the_place_of_what_is_served_here() {
    let remote = |group: &str, is_fresh: bool| Remote {
        is_fresh,
        resources: vec![json!({ "resource": "flunders" })],
        ..Remote::unknown(&(group.into(), "v1".into()))
    };
    let mut known = Known::default();
    for (group, is_fresh, priority) in [("apps", true, 100), ("wardle.example.com", false, 2000)] {
        let name = (group.to_owned(), "v1".to_owned());
        known.remotes.insert(name.clone(), std::sync::Arc::new(remote(group, is_fresh)));
        known.priorities.insert(name, Priority { group: priority, version: 10 });
    }
    let discovery = Discovery::new(&[&POD, &DEPLOYMENT], &[], &known, "");
    let document = |path, accept| discovery.document(path, accept);
    let read = |document: &Document| serde_json::from_slice::<Value>(&document.body).unwrap();
    let groups = read(document(Path::Apis, V2).unwrap());
    let said = |index: usize| {
        let group = &groups["items"][index];
        let version = &group["versions"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        [
            text(&group["metadata"]["name"]),
            text(&version["freshness"]),
            text(&version["resources"][0]["resource"]),
        ]
    };
    assert_eq!(said(0), ["wardle.example.com", "Stale", "flunders"]);
    assert_eq!(said(1), ["apps", "Current", "flunders"]);
    assert!(document(Path::Group("wardle.example.com"), "").is_some());
    assert!(document(Path::GroupVersion("apps", "v1"), "").is_none(), "it is asked there");
}
