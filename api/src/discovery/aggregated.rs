//! The aggregated form: everything in one `APIGroupDiscoveryList`.

use serde_json::{Value, json};

use super::{GroupVersion, Served, subresource_kind, verbs};
use crate::registry::strategy::{Kind, Scope, Subresource};

/// The list of these groups, in a version of `apidiscovery.k8s.io`.
pub(super) fn list(of: &[&GroupVersion<'_>], api_version: &str) -> Value {
    let mut groups: Vec<(&str, Vec<Value>)> = Vec::new();
    for gv in of {
        let version = version(gv);
        match groups.iter_mut().find(|(name, _)| *name == gv.group) {
            Some((_, versions)) => versions.push(version),
            None => groups.push((gv.group, vec![version])),
        }
    }
    let items: Vec<Value> =
        groups.into_iter().map(|(name, versions)| group(name, &versions)).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{api_version}"),
        "metadata": {},
        "items": items,
    })
}

fn group(name: &str, versions: &[Value]) -> Value {
    let mut metadata = json!({ "creationTimestamp": null });
    if !name.is_empty() {
        metadata["name"] = name.into();
    }
    json!({ "metadata": metadata, "versions": versions })
}

fn version(gv: &GroupVersion<'_>) -> Value {
    let (resources, is_fresh) = match &gv.served {
        Served::Here(kinds) => (kinds.iter().map(|kind| resource(kind)).collect(), true),
        Served::There(remote) => (remote.resources.clone(), remote.is_fresh),
    };
    let freshness = if is_fresh { "Current" } else { "Stale" };
    let mut version = json!({ "version": gv.version, "freshness": freshness });
    if !resources.is_empty() {
        version["resources"] = resources.into();
    }
    version
}

fn resource(kind: &Kind) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": {
            "group": kind.group,
            "version": kind.version,
            "kind": kind.kind,
        },
        "scope": match kind.scope {
            Scope::Namespaced => "Namespaced",
            Scope::Cluster => "Cluster",
        },
        "singularResource": kind.singular,
        "verbs": verbs(kind.verbs),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let mut subresources: Vec<&Subresource> = kind.subresources.iter().collect();
    if !subresources.is_empty() {
        subresources.sort_by_key(|sub| sub.name);
        let list: Vec<Value> = subresources.iter().map(|sub| subresource(kind, sub)).collect();
        resource["subresources"] = list.into();
    }
    resource
}

fn subresource(kind: &Kind, sub: &Subresource) -> Value {
    let (group, version, name) = subresource_kind(kind, sub);
    json!({
        "subresource": sub.name,
        "responseKind": { "group": group, "version": version, "kind": name },
        "verbs": verbs(sub.verbs),
    })
}
