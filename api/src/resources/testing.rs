//! What the tests of the kinds share: an object through its strategy, as the registry takes it.

use std::sync::Arc;

use serde_json::Value;

use crate::authn::User;
use crate::authz::{Attributes, Authorizer, Verdict};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::status::FieldError;

/// Allows everything.
struct Anything;

impl Authorizer for Anything {
    fn at_once(&self, _user: &User, _attributes: &Attributes) -> Option<Verdict> {
        Some(Verdict::allow())
    }
}

/// The context of a request that anybody may make.
pub(super) fn context() -> RequestContext {
    let user = Arc::new(User::authenticated("tester", &[]));
    let attributes = Attributes::Path { verb: "get".to_owned(), path: "/".to_owned() };
    RequestContext::authorize(&Anything, user, attributes).unwrap()
}

/// The object of a JSON value.
pub(super) fn object(value: Value) -> Object {
    Object::new(value).unwrap()
}

/// An object with its defaults. Defaulting it again must change nothing.
pub(super) fn defaulted(kind: &Kind, value: Value) -> Object {
    let mut object = object(value);
    kind.strategy.default(&mut object);
    let once = object.clone();
    kind.strategy.default(&mut object);
    assert_eq!(object, once, "defaulting must be idempotent");
    object
}

/// A new object as it would be stored.
pub(super) fn created(kind: &Kind, value: Value) -> Object {
    let mut object = defaulted(kind, value);
    kind.strategy.prepare_for_create(&context(), &mut object);
    object
}

/// What is wrong with a new object, in words.
pub(super) fn problems(kind: &Kind, value: Value) -> Vec<String> {
    texts(&kind.strategy.validate(&created(kind, value)))
}

/// An update as it would be stored.
pub(super) fn updated(kind: &Kind, old: &Object, value: Value) -> Object {
    let mut object = defaulted(kind, value);
    kind.strategy.prepare_for_update(&context(), &mut object, old);
    object
}

/// What is wrong with an update, in words.
pub(super) fn change_problems(kind: &Kind, old: Value, new: Value) -> Vec<String> {
    let old = created(kind, old);
    let new = updated(kind, &old, new);
    texts(&kind.strategy.validate_update(&new, &old))
}

/// The errors in words.
pub(super) fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// The cells of an object's row at a moment, each with its column's name.
pub(super) fn row(kind: &Kind, value: Value, now: &str) -> Vec<(&'static str, Value)> {
    let cells = kind.strategy.row(&object(value), now.parse().unwrap());
    let columns = kind.strategy.columns();
    assert_eq!(cells.len(), columns.len(), "each column must have a cell");
    columns.iter().map(|column| column.name).zip(cells).collect()
}

/// The same as one line of text.
pub(super) fn line(kind: &Kind, value: Value, now: &str) -> String {
    let cells = row(kind, value, now);
    let shown = cells.iter().map(|(_, cell)| match cell {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    shown.collect::<Vec<_>>().join(" | ")
}
