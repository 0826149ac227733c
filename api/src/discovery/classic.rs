//! The classic form: `APIVersions`, `APIGroupList`, `APIGroup`, `APIResourceList`.

use serde_json::{Value, json};

use super::{GroupVersion, StorageHashes, subresource_kind, verbs};
use crate::registry::strategy::{Kind, Subresource};

/// `/api`
pub(super) fn api_versions(core: &[&GroupVersion<'_>], server_address: &str) -> Value {
    let versions: Vec<&str> = core.iter().map(|gv| gv.version).collect();
    let addresses = if server_address.is_empty() {
        json!([])
    } else {
        json!([{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }])
    };
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": addresses,
    })
}

/// `/apis`
pub(super) fn api_group_list(named: &[&GroupVersion<'_>]) -> Value {
    let groups: Vec<Value> = groups(named).into_iter().map(|(_, group)| group).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP` of each group, by name; the first version is preferred.
pub(super) fn groups<'a>(named: &[&'a GroupVersion<'a>]) -> Vec<(&'a str, Value)> {
    let mut groups: Vec<(&str, Vec<Value>)> = Vec::new();
    for gv in named {
        let version = json!({ "groupVersion": group_version(gv), "version": gv.version });
        match groups.iter_mut().find(|(name, _)| *name == gv.group) {
            Some((_, versions)) => versions.push(version),
            None => groups.push((gv.group, vec![version])),
        }
    }
    let group = |(name, versions): (&'a str, Vec<Value>)| {
        let value = json!({
            "kind": "APIGroup",
            "apiVersion": "v1",
            "name": name,
            "preferredVersion": versions[0],
            "versions": versions,
        });
        (name, value)
    };
    groups.into_iter().map(group).collect()
}

/// `/api/VERSION`, `/apis/GROUP/VERSION`
pub(super) fn api_resource_list(
    gv: &GroupVersion<'_>,
    kinds: &[&Kind],
    hashes: &StorageHashes,
) -> Value {
    let mut resources = Vec::new();
    for kind in kinds {
        resources.push(resource(kind, hashes));
        let mut subresources: Vec<&Subresource> = kind.subresources.iter().collect();
        subresources.sort_by_key(|sub| sub.name);
        resources.extend(subresources.into_iter().map(|sub| subresource(kind, sub)));
    }
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(gv),
        "resources": resources,
    })
}

fn group_version(gv: &GroupVersion<'_>) -> String {
    if gv.group.is_empty() { gv.version.to_owned() } else { format!("{}/{}", gv.group, gv.version) }
}

fn resource(kind: &Kind, hashes: &StorageHashes) -> Value {
    let mut resource = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.is_namespaced(),
        "kind": kind.kind,
        "verbs": verbs(kind.verbs),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    if let Some(hash) = hashes.get(kind) {
        resource["storageVersionHash"] = json!(hash);
    }
    resource
}

fn subresource(kind: &Kind, sub: &Subresource) -> Value {
    let (group, version, name) = subresource_kind(kind, sub);
    let mut resource = json!({
        "name": format!("{}/{}", kind.plural, sub.name),
        "singularName": "",
        "namespaced": kind.is_namespaced(),
        "kind": name,
        "verbs": verbs(sub.verbs),
    });
    if (group, version) != (kind.group, kind.version) {
        resource["group"] = group.into();
        resource["version"] = version.into();
    }
    resource
}
