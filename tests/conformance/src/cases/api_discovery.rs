//! What the API says about itself.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};

use super::crds;
use crate::cases;
use crate::world::{World, holds, items, same, until};

const SOON: Duration = Duration::from_secs(60);
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

cases! {
    "[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface [Conformance]"
        => aggregated,
    "[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface for CRDs [Conformance]"
        => aggregated_for_crds,
    "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers [Conformance]"
        => raw_aggregated,
    "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs [Conformance]"
        => raw_aggregated_for_crds,
    "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery documents [Conformance]"
        => webhook_resources,
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition resources in discovery documents [Conformance]"
        => crd_resources,
    "[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup [Conformance]"
        => each_group,
    "[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]"
        => preferred_versions,
    "[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata [Conformance]"
        => no_table,
    "[sig-api-machinery] server version should find the server version [Conformance]"
        => server_version,
}

/// Groups with a version and a resource that every cluster has.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "v1", "apiservices"),
    ("apps", "v1", "deployments"),
    ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"),
    ("events.k8s.io", "v1", "events"),
    ("flowcontrol.apiserver.k8s.io", "v1", "flowschemas"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "v1", "clusterroles"),
    ("scheduling.k8s.io", "v1", "priorityclasses"),
    ("storage.k8s.io", "v1", "csinodes"),
];

/// A document of aggregated discovery, as `accept` asks for it.
async fn document(world: &World, path: &str, accept: &str) -> Result<Value> {
    let answer = world.api.send(Method::GET, path, &[("accept", accept)], None).await?;
    let kind = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
    same("the code", &json!(answer.code), &json!(200))?;
    same("the content type", &json!(kind), &json!(AGGREGATED))?;
    let document = answer.json();
    same("its kind", &document["kind"], &json!("APIGroupDiscoveryList"))?;
    same("its version", &document["apiVersion"], &json!("apidiscovery.k8s.io/v2"))?;
    Ok(document)
}

/// A resource in such a document.
fn find<'a>(document: &'a Value, group: &str, version: &str, plural: &str) -> Option<&'a Value> {
    let named = |entry: &&Value| entry["metadata"]["name"].as_str().unwrap_or_default() == group;
    let versions = items(document).iter().find(named)?["versions"].as_array()?;
    let resources =
        versions.iter().find(|known| known["version"] == version)?["resources"].as_array()?;
    resources.iter().find(|known| known["resource"] == plural)
}

fn expect(document: &Value, group: &str, version: &str, plural: &str) -> Result<Value> {
    let found = find(document, group, version, plural);
    let found = found.with_context(|| format!("{group}/{version} {plural} is missing"))?;
    holds("it has verbs", found["verbs"].as_array().is_some_and(|all| !all.is_empty()), found)?;
    holds("it has a kind", found["responseKind"]["kind"].is_string(), found)?;
    holds("it has a scope", found["scope"].is_string(), found)?;
    Ok(found.clone())
}

/// As client libraries ask: the newest form first, plain JSON as the last resort.
fn fallbacks() -> String {
    format!("{AGGREGATED},{},application/json", AGGREGATED.replace("v=v2;", "v=v2beta1;"))
}

async fn aggregated(world: World) -> Result<()> {
    let accept = fallbacks();
    let core = document(&world, "/api", &accept).await?;
    let pods = expect(&core, "", "v1", "pods")?;
    same("the scope of pods", &pods["scope"], &json!("Namespaced"))?;
    let parts = pods["subresources"].as_array().cloned().unwrap_or_default();
    for part in ["status", "log", "exec"] {
        let known = parts.iter().any(|known| known["subresource"] == part);
        holds(part, known, &pods)?;
    }
    let nodes = expect(&core, "", "v1", "nodes")?;
    same("the scope of nodes", &nodes["scope"], &json!("Cluster"))?;
    let groups = document(&world, "/apis", &accept).await?;
    RESOURCES
        .iter()
        .try_for_each(|(group, version, plural)| expect(&groups, group, version, plural).map(drop))
}

async fn raw_aggregated(world: World) -> Result<()> {
    let core = document(&world, "/api", AGGREGATED).await?;
    expect(&core, "", "v1", "namespaces")?;
    let groups = document(&world, "/apis", AGGREGATED).await?;
    for (group, version, plural) in RESOURCES {
        expect(&groups, group, version, plural)?;
    }
    let plain = world.api.get("/apis").await?;
    same("who does not ask gets the old form", &plain["kind"], &json!("APIGroupList"))
}

async fn aggregated_for_crds(world: World) -> Result<()> {
    crd_is_listed(&world, &fallbacks()).await
}

async fn raw_aggregated_for_crds(world: World) -> Result<()> {
    crd_is_listed(&world, AGGREGATED).await
}

async fn crd_is_listed(world: &World, accept: &str) -> Result<()> {
    let crd = crds::open(world, "gadgets", "Gadget");
    crds::establish(world, &crd).await?;
    let group = crds::group(world);
    let listed = until(SOON, || async {
        expect(&document(world, "/apis", accept).await?, &group, "v1", "gadgets")
    });
    let found = listed.await?;
    same("its scope", &found["scope"], &json!("Namespaced"))?;
    let kind = json!({"group": group, "version": "v1", "kind": "Gadget"});
    same("its kind", &found["responseKind"], &kind)
}

/// The entry of a group in `/apis`.
async fn group_entry(world: &World, group: &str) -> Result<Value> {
    let all = world.api.get("/apis").await?;
    let groups = all["groups"].as_array().cloned().unwrap_or_default();
    let found = groups.into_iter().find(|known| known["name"] == group);
    found.with_context(|| format!("/apis has no {group}"))
}

fn has_version(entry: &Value, group_version: &str) -> bool {
    let versions = entry["versions"].as_array().map_or(&[][..], Vec::as_slice);
    versions.iter().any(|known| known["groupVersion"] == group_version)
}

async fn in_documents(world: &World, group: &str, version: &str, plurals: &[&str]) -> Result<()> {
    let full = format!("{group}/{version}");
    let entry = group_entry(world, group).await?;
    holds("/apis has the version", has_version(&entry, &full), &entry)?;
    let alone = world.api.get(&format!("/apis/{group}")).await?;
    same("the kind of a group", &alone["kind"], &json!("APIGroup"))?;
    holds("its document has the version", has_version(&alone, &full), &alone)?;
    let list = world.api.get(&format!("/apis/{full}")).await?;
    same("the kind of a version", &list["kind"], &json!("APIResourceList"))?;
    same("the version", &list["groupVersion"], &json!(full))?;
    let resources = list["resources"].as_array().cloned().unwrap_or_default();
    plurals.iter().try_for_each(|plural| {
        holds(plural, resources.iter().any(|known| known["name"] == *plural), &list)
    })
}

async fn webhook_resources(world: World) -> Result<()> {
    let plurals = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    in_documents(&world, "admissionregistration.k8s.io", "v1", &plurals).await
}

async fn crd_resources(world: World) -> Result<()> {
    in_documents(&world, "apiextensions.k8s.io", "v1", &["customresourcedefinitions"]).await
}

async fn each_group(world: World) -> Result<()> {
    for (group, version, plural) in RESOURCES {
        in_documents(&world, group, version, &[plural]).await?;
    }
    Ok(())
}

async fn preferred_versions(world: World) -> Result<()> {
    let all = world.api.get("/apis").await?;
    let groups = all["groups"].as_array().context("there are groups")?;
    holds("there are some", groups.len() >= 10, &all)?;
    // What other cases add and remove may be gone by now.
    let lasting =
        |group: &&Value| group["name"].as_str().is_some_and(|name| !name.ends_with("example.com"));
    for group in groups.iter().filter(lasting) {
        let name = group["name"].as_str().unwrap_or_default();
        let entry = world.api.get(&format!("/apis/{name}")).await?;
        let preferred = &entry["preferredVersion"];
        let versions = entry["versions"].as_array().cloned().unwrap_or_default();
        holds("the preferred version is one of them", versions.contains(preferred), &entry)?;
        same("both documents agree", preferred, &group["preferredVersion"])?;
        let full = preferred["groupVersion"].as_str().unwrap_or_default();
        let named = format!("{name}/{}", preferred["version"].as_str().unwrap_or_default());
        same("its names agree", &json!(full), &json!(named))?;
    }
    Ok(())
}

async fn no_table(world: World) -> Result<()> {
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let headers = [("content-type", "application/json"), ("accept", table)];
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": world.ns}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let body = Some(review.to_string().into_bytes());
    let answer = world.api.send(Method::POST, path, &headers, body).await?;
    same("the code", &json!(answer.code), &json!(406))?;
    same("the reason", &answer.json()["reason"], &json!("NotAcceptable"))?;
    // What is listed has one.
    let pods = world.path("v1", "pods", "");
    let listed = world.api.send(Method::GET, &pods, &[("accept", table)], None).await?;
    same("a list as a table", &listed.json()["kind"], &json!("Table"))
}

async fn server_version(world: World) -> Result<()> {
    let version = world.api.get("/version").await?;
    for part in ["major", "minor"] {
        let digits = version[part]
            .as_str()
            .is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        holds(&format!("{part} is an integer"), digits, &version)?;
    }
    holds(
        "it has a name",
        version["gitVersion"].as_str().is_some_and(|v| v.starts_with('v')),
        &version,
    )
}
