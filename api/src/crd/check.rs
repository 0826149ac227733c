//! What a definition may not say.

mod schema;

use std::collections::BTreeSet;

use serde_json::Value;

use super::path::JsonPath;
use crate::resources::webhook_configuration::check_client;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The most fields that selectors may name.
const SELECTABLE_MAX: usize = 8;
/// The annotation by which somebody vouches for a definition in Kubernetes' own groups.
const APPROVED: &str = "api-approved.kubernetes.io";

/// Everything that is wrong with a definition.
pub fn check(errors: &mut Errors, root: &At<'_>) {
    let (spec, metadata) = (root.at("spec"), root.at("metadata"));
    let (group, wanted) = (spec.at("group"), spec.at("names"));
    let name = metadata.at("name");
    if name.str() != format!("{}.{}", wanted.at("plural").str(), group.str()) {
        errors.invalid(&name, "must be spec.names.plural+\".\"+spec.group");
    }
    check_group(errors, &group);
    check_approval(errors, &group, &metadata);
    errors.one_of(&spec.at("scope"), &["Cluster", "Namespaced"]);
    check_versions(errors, &spec);
    check_names(errors, &wanted, Needed::All);
    let status = root.at("status");
    check_names(errors, &status.at("acceptedNames"), Needed::Nothing);
    let preserves = spec.at("preserveUnknownFields");
    if preserves.is_true() {
        errors.invalid(
            &preserves,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
             spec.versions[*].schema instead",
        );
    }
    check_conversion(errors, &spec.at("conversion"));
}

/// A webhook is named where it is called for, and only there.
fn check_conversion(errors: &mut Errors, conversion: &At<'_>) {
    let (strategy, webhook) = (conversion.at("strategy"), conversion.at("webhook"));
    errors.one_of(&strategy, &["None", "Webhook"]);
    if strategy.str() != "Webhook" {
        if webhook.is_set() {
            errors.forbidden(&webhook, "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    let (client, versions) = (webhook.at("clientConfig"), webhook.at("conversionReviewVersions"));
    if client.is_set() {
        check_client(errors, &client);
    } else {
        errors.required(&client, "required when strategy is set to Webhook");
    }
    if versions.is_empty() {
        errors.required(&versions, "");
    } else if !versions.strings().any(|version| matches!(version, "v1" | "v1beta1")) {
        errors.invalid(&versions, "must include at least one of v1, v1beta1");
    }
}

/// What may not change once objects may be stored.
pub fn check_change(errors: &mut Errors, new: &At<'_>, old: &At<'_>, established: Established) {
    let (spec, was) = (new.at("spec"), old.at("spec"));
    let (names, were) = (spec.at("names"), was.at("names"));
    if established == Established::Yes {
        errors.immutable(&spec.at("scope"), &was.at("scope"));
        errors.immutable(&names.at("kind"), &were.at("kind"));
    }
    errors.immutable(&spec.at("group"), &was.at("group"));
    errors.immutable(&names.at("plural"), &were.at("plural"));
    check_stored(errors, new);
}

/// The versions in which objects may be stored must be among the versions.
pub fn check_stored(errors: &mut Errors, root: &At<'_>) {
    let (spec, status) = (root.at("spec"), root.at("status"));
    let (versions, stored) = (spec.at("versions"), status.at("storedVersions"));
    if stored.is_empty() {
        errors.invalid(&stored, "must have at least one stored version");
        return;
    }
    let name = |version: &Value| version["name"].as_str().unwrap_or_default().to_owned();
    let all = versions.value().as_array().map_or(&[][..], Vec::as_slice);
    let known: BTreeSet<String> = all.iter().map(name).collect();
    for version in stored.items().filter(|version| !known.contains(version.str())) {
        errors.invalid(&version, "must appear in spec.versions");
    }
    let storage = all.iter().find(|version| version["storage"] == true).map(name);
    if let Some(storage) = storage.filter(|name| !stored.strings().any(|other| other == name)) {
        errors.invalid(&stored, format!("must have the storage version {storage}"));
    }
}

/// Whether a definition's names were once accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Established {
    /// They were.
    Yes,
    /// Not yet.
    No,
}

fn check_group(errors: &mut Errors, group: &At<'_>) {
    if group.str().is_empty() {
        return errors.required(group, "");
    }
    let problems = names::dns1123_subdomain(group.str());
    if !problems.is_empty() {
        errors.invalid(group, problems.join(","));
    } else if !group.str().contains('.') {
        errors.invalid(group, "should be a domain with at least one dot");
    }
}

/// Kubernetes' own groups are not everybody's.
fn check_approval(errors: &mut Errors, group: &At<'_>, metadata: &At<'_>) {
    let is_protected = |end: &str| {
        group.str().strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.'))
    };
    if !is_protected("k8s.io") && !is_protected("kubernetes.io") {
        return;
    }
    let annotations = metadata.at("annotations");
    let approved = annotations.key(APPROVED);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    if approved.str().is_empty() {
        let why = format!("protected groups must have approval annotation \"{APPROVED}\", {see}");
        errors.required(&approved, why);
    } else if !approved.str().starts_with("http") && !approved.str().starts_with("unapproved") {
        let why = format!(
            "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a \
             reason starting with \"unapproved\", {see}"
        );
        errors.invalid(&approved, why);
    }
}

/// Which names must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    All,
    Nothing,
}

fn check_names(errors: &mut Errors, wanted: &At<'_>, needed: Needed) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = wanted.at(field);
        if name.str().is_empty() {
            if needed == Needed::All {
                errors.required(&name, "");
            }
            continue;
        }
        let is_kind = field.ends_with("ind");
        let lower = name.str().to_lowercase();
        let problems = names::dns1035_label(if is_kind { &lower } else { name.str() });
        if !problems.is_empty() {
            let start =
                if is_kind { "may have mixed case, but should otherwise match: " } else { "" };
            errors.invalid(&name, format!("{start}{}", problems.join(",")));
        }
    }
    for field in ["shortNames", "categories"] {
        for name in wanted.at(field).items() {
            let problems = names::dns1035_label(name.str());
            if !problems.is_empty() {
                errors.invalid(&name, problems.join(","));
            }
        }
    }
    let list = wanted.at("listKind");
    if needed == Needed::All && !list.is_empty() && list.str() == wanted.at("kind").str() {
        errors.invalid(&list, "kind and listKind may not be the same");
    }
}

fn check_versions(errors: &mut Errors, spec: &At<'_>) {
    let versions = spec.at("versions");
    let count =
        |field: &str| versions.items().filter(|version| version.at(field).is_true()).count();
    if versions.is_empty() {
        errors.required(&versions, "must have at least one version");
        return;
    }
    if count("storage") != 1 {
        errors.invalid(&versions, "must have exactly one version marked as storage version");
    }
    let mut seen = BTreeSet::new();
    if !versions.items().all(|version| seen.insert(version.at("name").str().to_owned())) {
        errors.invalid(&versions, "must contain unique version names");
    }
    for version in versions.items() {
        let name = version.at("name");
        let problems = names::dns1035_label(name.str());
        if !problems.is_empty() {
            errors.invalid(&name, problems.join(","));
        }
        let schema = version.at("schema");
        let schema = schema.at("openAPIV3Schema");
        if !schema.is_set() {
            errors.required(&schema, "schemas are required");
        }
    }
    check_contents(errors, spec, &versions);
}

/// What all versions say alike is, to Kubernetes, said once for all of them, and is so named.
fn check_contents(errors: &mut Errors, spec: &At<'_>, versions: &At<'_>) {
    const NOTHING: &Value = &Value::Null;
    let first = versions.index(0);
    let is_same = |field: &str| {
        let own = |version: &Value| version.get(field).unwrap_or(NOTHING).clone();
        let all = versions.value().as_array().into_iter().flatten();
        all.into_iter().all(|version| own(version) == own(first.value()))
    };
    let each = |field: &'static str, named: &'static str, act: &mut dyn FnMut(&At<'_>)| {
        if is_same(field) {
            act(&spec.at(named).with(first.at(field).value()));
        } else {
            versions.items().for_each(|version| act(&version.at(field)));
        }
    };
    each("schema", "validation", &mut |schema| {
        let schema = schema.at("openAPIV3Schema");
        if schema.is_set() {
            schema::check(errors, &schema);
        }
    });
    each("additionalPrinterColumns", "additionalPrinterColumns", &mut |columns| {
        columns.items().for_each(|column| check_column(errors, &column));
    });
    each("subresources", "subresources", &mut |parts| check_scale(errors, &parts.at("scale")));
    each("selectableFields", "selectableFields", &mut |fields| check_selectable(errors, fields));
}

fn check_column(errors: &mut Errors, column: &At<'_>) {
    if column.at("name").str().is_empty() {
        errors.required(&column.at("name"), "");
    }
    errors.one_of(&column.at("type"), &["boolean", "date", "integer", "number", "string"]);
    let formats = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    errors.optional_one_of(&column.at("format"), &formats);
    let path = column.at("jsonPath");
    if path.str().is_empty() {
        errors.required(&path, "");
    } else if !path.str().starts_with('.') || JsonPath::parse(path.str()).is_none() {
        errors.invalid(&path, "must be a valid JSON path that starts with a dot");
    }
}

fn check_scale(errors: &mut Errors, scale: &At<'_>) {
    if !scale.is_set() {
        return;
    }
    for (field, under) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let path = scale.at(field);
        if path.str().is_empty() {
            errors.required(&path, "");
        } else if !path.str().starts_with(under) || !is_plain(path.str()) {
            let root = under.trim_end_matches('.');
            errors.invalid(&path, format!("should be a json path under {root}"));
        }
    }
    let path = scale.at("labelSelectorPath");
    let is_under = path.str().starts_with(".spec.") || path.str().starts_with(".status.");
    let is_good = path.str().is_empty() || (is_under && is_plain(path.str()));
    if !is_good {
        errors.invalid(&path, "should be a json path under either .spec or .status");
    }
}

/// Whether a path goes by keys alone.
fn is_plain(path: &str) -> bool {
    JsonPath::parse(path).is_some_and(|path| path.keys().is_some())
}

fn check_selectable(errors: &mut Errors, fields: &At<'_>) {
    if fields.len() > SELECTABLE_MAX {
        errors.too_many(fields, SELECTABLE_MAX);
    }
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let path = field.at("jsonPath");
        if path.str().is_empty() {
            errors.required(&path, "");
        } else if !path.str().starts_with('.') || !is_plain(path.str()) {
            errors.invalid(&path, "must be a simple path of field names");
        } else if path.str().starts_with(".metadata") {
            errors.invalid(&path, "must not point to fields in metadata");
        } else if !seen.insert(path.str().to_owned()) {
            errors.duplicate(&path);
        }
    }
}
