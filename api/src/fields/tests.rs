mod applying;
mod properties;
mod updating;

use serde_json::{Value, json};

use super::entries::Entries;
use super::*;
use crate::object::Object;
use crate::schema::{Gvk, Type};

pub(super) const DEPLOYMENT: Gvk<'static> = Gvk::new("apps", "v1", "Deployment");

pub(super) fn place() -> Place {
    Place::of_kind(DEPLOYMENT)
}

/// A moment, some seconds after the first.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

pub(super) fn writer(manager: &str, seconds: i64) -> Writer<'_> {
    Writer {
        manager,
        api_version: "apps/v1",
        subresource: "",
        now: at(seconds),
        reset: Reset::Status,
    }
}

pub(super) fn deployment(content: Value) -> Object {
    let mut object = Object::empty("apps/v1", "Deployment");
    object.set_meta("name", "web");
    json_patch::merge(object.value_mut(), &content);
    object
}

pub(super) fn containers(list: Value) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": list } } } })
}

/// A first apply, of which the object comes to be.
pub(super) fn created(manager: &str, content: Value) -> Object {
    let nothing = Object::empty("apps/v1", "Deployment");
    apply(place(), &nothing, &deployment(content), &writer(manager, 0), Conflicts::Refuse).unwrap()
}

pub(super) fn applied(live: &Object, manager: &str, content: Value) -> Result<Object, ApplyError> {
    apply(place(), live, &deployment(content), &writer(manager, 60), Conflicts::Refuse)
}

pub(super) fn updated(live: &Object, manager: &str, change: Value) -> Object {
    let mut new = live.clone();
    json_patch::merge(new.value_mut(), &change);
    update(place(), live, &mut new, &writer(manager, 30));
    new
}

/// What each manager owns.
pub(super) fn owners(object: &Object) -> Value {
    let entries = Entries::of(object).unwrap();
    let each = entries.0.iter().map(|entry| {
        (format!("{} {:?}", entry.manager, entry.operation), json!(entry.fields.paths()))
    });
    Value::Object(each.collect())
}

#[test]
fn a_set_reads_what_it_writes() {
    let text = json!({
        "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
        "f:spec": {
            "f:ports": {
                r#"k:{"port":80,"protocol":"TCP"}"#: { ".": {}, "f:port": {} },
                "i:3": {},
            },
            "f:finalizers": { r#"v:"a/b""#: {}, "v:1": {} },
        },
    });
    let set = Set::parse(&text).unwrap();
    assert_eq!(set.to_value(), text);
    assert_eq!(
        set.paths(),
        [
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.finalizers[=\"a/b\"]",
            ".spec.finalizers[=1]",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[3]",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
        ]
    );
    let unordered = json!({ r#"k:{"protocol":"TCP","port":80}"#: {} });
    let ordered = json!({ r#"k:{"port":80,"protocol":"TCP"}"#: {} });
    assert_eq!(Set::parse(&unordered), Set::parse(&ordered));
    for bad in [json!({ "x:a": {} }), json!({ "k:[1]": {} }), json!("f:a"), json!({ "f": {} })] {
        assert_eq!(Set::parse(&bad), None, "{bad}");
    }
}

#[test]
fn every_list_that_strategic_patches_merge_has_a_list_type() {
    for schema in Type::all() {
        for field in schema.own_fields() {
            let is_unset = field.list == crate::schema::ListType::Unset;
            assert!(!(field.patch.merge && is_unset), "{}.{}", schema.name, field.name);
        }
    }
}

#[test]
fn a_manager_without_a_name_is_called_by_its_program() {
    assert_eq!(manager_of("helm", "kubectl/v1.32"), "helm");
    assert_eq!(manager_of("", "kubectl/v1.32 (linux/amd64)"), "kubectl");
    assert_eq!(manager_of("", "a\u{7}b/1"), "ab");
    assert_eq!(manager_of("", &"é".repeat(100)).len(), MANAGER_BYTES_MAX);
    assert_eq!(manager_of("", ""), "");
}
