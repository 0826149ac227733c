//! APIService: who serves a version of a group, this server or another one behind a Service. What
//! comes of it is in [`crate::aggregate`].

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check;
use super::defaults::{child, fill};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::seconds;
use crate::registry::strategy::{
    ALL_VERBS, Column, Kind, NameRule, Scope, Strategy, Subresource, keep,
};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    short_names: &[],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage: "apiregistration.k8s.io/apiservices",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &ApiService,
};

/// The condition that says whether the version can be asked for.
pub const AVAILABLE: &str = "Available";

const PORT: i64 = 443;
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("Service", "The reference to the service that hosts this API endpoint."),
    table::text("Available", "Whether this service is available."),
    AGE,
];

/// How a version of a group is: the fields of its condition `Available`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// Why, in a word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

impl Availability {
    /// That of what this server serves itself.
    pub fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Self { status: "True", reason: "Local", message }
    }
}

/// Whether another server serves what the object is about.
pub fn is_remote(object: &Object) -> bool {
    object.at("/spec/service").is_some_and(Value::is_object)
}

/// Whether the version can be asked for.
pub fn is_available(object: &Object) -> bool {
    condition(object).is_some_and(|condition| condition["status"] == "True")
}

/// The condition `Available`.
pub fn condition(object: &Object) -> Option<&Value> {
    let conditions = object.at("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == AVAILABLE)
}

/// Sets the condition `Available`; its time only moves where its status does.
pub fn set_availability(object: &mut Object, now: &str, is: &Availability) {
    let since = condition(object)
        .filter(|condition| condition["status"] == is.status)
        .and_then(|condition| condition["lastTransitionTime"].as_str())
        .unwrap_or(now)
        .to_owned();
    let condition = json!({
        "type": AVAILABLE,
        "status": is.status,
        "reason": is.reason,
        "message": is.message,
        "lastTransitionTime": since,
    });
    let list = object.entry(&["status", "conditions"]);
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|one| one["type"] == AVAILABLE) {
        Some(known) => *known = condition,
        None => list.push(condition),
    }
}

#[derive(Debug)]
struct ApiService;

impl Strategy for ApiService {
    fn default(&self, object: &mut Object) {
        let spec = child(object.value_mut(), "spec");
        if let Some(service) = spec.and_then(|spec| child(spec, "service")) {
            fill(service, "port", PORT);
        }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, ctx: &RequestContext, object: &mut Object) {
        self.prepare_create_default(object);
        if !is_remote(object) {
            set_availability(object, &seconds(ctx.now), &Availability::local());
        }
    }

    fn prepare_status_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        keep(object, old, "spec");
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            match old.at(&format!("/metadata/{field}")) {
                Some(value) => object.set_meta(field, value.clone()),
                None => drop(object.remove(&["metadata", field])),
            }
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            check_names(errors, root);
            let spec = root.at("spec");
            check_priority(errors, &spec.at("groupPriorityMinimum"), GROUP_PRIORITY_MAX);
            check_priority(errors, &spec.at("versionPriority"), VERSION_PRIORITY_MAX);
            if spec.at("service").is_set() {
                check_remote(errors, &spec);
            } else {
                check_local(errors, &spec);
            }
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            for condition in root.at("status").at("conditions").items() {
                let status = condition.at("status");
                if !["True", "False", "Unknown"].contains(&status.str()) {
                    errors.not_supported(&status, &["False", "True", "Unknown"]);
                }
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let service = if is_remote(object) {
            let text = |pointer| object.str_at(pointer);
            format!("{}/{}", text("/spec/service/namespace"), text("/spec/service/name"))
        } else {
            "Local".to_owned()
        };
        let available = condition(object).map_or_else(|| "Unknown".to_owned(), in_a_word);
        vec![object.name().into(), service.into(), available.into(), table::age(object, now)]
    }
}

fn in_a_word(condition: &Value) -> String {
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    match text("status") {
        "True" => "True".to_owned(),
        status => format!("{status} ({})", text("reason")),
    }
}

fn check_names(errors: &mut Errors, root: &At<'_>) {
    let spec = root.at("spec");
    let (group, version) = (spec.at("group"), spec.at("version"));
    let wanted = format!("{}.{}", version.str(), group.str());
    let metadata = root.at("metadata");
    let name = metadata.at("name");
    if name.str() != wanted {
        errors.invalid(&name, format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    if group.str().is_empty() && version.str() != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.required(&group, why);
    }
    if !group.str().is_empty() {
        errors.invalid_each(&group, names::dns1123_subdomain(group.str()));
    }
    errors.invalid_each(&version, names::dns1035_label(version.str()));
}

fn check_priority(errors: &mut Errors, priority: &At<'_>, max: i64) {
    let value = priority.int_or_zero();
    if !(1..=max).contains(&value) {
        let why = format!("must be positive and less than {max}");
        errors.invalid_value(priority, value, why);
    }
}

fn check_local(errors: &mut Errors, spec: &At<'_>) {
    let bundle = spec.at("caBundle");
    if !bundle.is_empty() {
        let bytes = format!("{} bytes", bundle_bytes(&bundle));
        errors.invalid_value(&bundle, bytes, "local APIServices may not have a caBundle");
    }
    let insecure = spec.at("insecureSkipTLSVerify");
    if insecure.is_true() {
        errors.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
    }
}

/// How many bytes a text in base64 stands for.
fn bundle_bytes(bundle: &At<'_>) -> usize {
    let text = bundle.str().trim_end_matches('=');
    text.len() * 3 / 4
}

fn check_remote(errors: &mut Errors, spec: &At<'_>) {
    let service = spec.at("service");
    for field in ["namespace", "name"] {
        if service.at(field).str().is_empty() {
            errors.required(&service.at(field), "");
        }
    }
    let port = service.at("port");
    if let Some(why) = names::port_number(port.int_or_zero()) {
        errors.invalid(&port, format!("port is not valid: {why}"));
    }
    let insecure = spec.at("insecureSkipTLSVerify");
    if insecure.is_true() && !spec.at("caBundle").is_empty() {
        errors.invalid(&insecure, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{line, problems};
    use super::*;

    fn service(spec: Value) -> Value {
        let mut all = json!({
            "group": "wardle.example.com", "version": "v1alpha1",
            "groupPriorityMinimum": 2000, "versionPriority": 200,
        });
        let spec = spec.as_object().cloned().unwrap();
        all.as_object_mut().unwrap().extend(spec);
        json!({ "metadata": { "name": "v1alpha1.wardle.example.com" }, "spec": all })
    }

    #[test]
    fn the_name_says_version_and_group_and_priorities_are_bounded() {
        assert!(problems(&KIND, service(json!({}))).is_empty());
        let wrong = json!({ "version": "v2", "groupPriorityMinimum": 0, "versionPriority": 1001 });
        assert_eq!(
            problems(&KIND, service(wrong)),
            [
                "metadata.name: Invalid value: \"v1alpha1.wardle.example.com\": must be \
                 `spec.version+\".\"+spec.group`: \"v2.wardle.example.com\"",
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            ]
        );
    }

    #[test]
    fn trust_belongs_to_a_service_and_is_of_one_sort() {
        let local = service(json!({ "caBundle": "Y2E=", "insecureSkipTLSVerify": true }));
        assert_eq!(
            problems(&KIND, local),
            [
                "spec.caBundle: Invalid value: \"2 bytes\": local APIServices may not have a \
                 caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have \
                 insecureSkipTLSVerify",
            ]
        );
        let both = service(json!({
            "caBundle": "Y2E=", "insecureSkipTLSVerify": true, "service": { "port": 70_000 },
        }));
        assert_eq!(
            problems(&KIND, both),
            [
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and \
                 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is \
                 present",
            ]
        );
    }

    #[test]
    fn a_row_says_where_it_is_served_and_why_it_is_not() {
        let now = "2026-01-01T00:01:00Z";
        let mut one = service(json!({ "service": { "namespace": "a", "name": "b" } }));
        one["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        let name = "v1alpha1.wardle.example.com";
        assert_eq!(line(&KIND, one.clone(), now), format!("{name} | a/b | Unknown | 60s"));
        one["status"]["conditions"] =
            json!([{ "type": "Available", "status": "False", "reason": "ServiceNotFound" }]);
        let row = format!("{name} | a/b | False (ServiceNotFound) | 60s");
        assert_eq!(line(&KIND, one.clone(), now), row);
        one["spec"].as_object_mut().unwrap().remove("service");
        one["status"]["conditions"][0]["status"] = "True".into();
        assert_eq!(line(&KIND, one, now), format!("{name} | Local | True | 60s"));
    }

    #[test]
    fn the_time_of_the_condition_moves_with_its_status_only() {
        let mut one = Object::new(service(json!({}))).unwrap();
        let down = Availability { status: "False", reason: "A", message: String::new() };
        set_availability(&mut one, "1", &down);
        set_availability(&mut one, "2", &Availability { reason: "B", ..down });
        assert_eq!(condition(&one).unwrap()["lastTransitionTime"], "1");
        assert_eq!(condition(&one).unwrap()["reason"], "B");
        set_availability(&mut one, "3", &Availability::local());
        assert_eq!(condition(&one).unwrap()["lastTransitionTime"], "3");
        assert_eq!(one.at("/status/conditions").unwrap().as_array().unwrap().len(), 1);
    }
}
