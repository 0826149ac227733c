//! Is the body of the kind that the path asks for? The questions and answers are those of
//! Kubernetes' codec.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Found;
use crate::schema::{Gvk, Type};
use crate::status::Status;

/// What a body must be.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An object of a kind.
    Kind(Gvk<'a>),
    /// Options, whose `apiVersion` may be that of any group.
    Options(&'static Type),
}

const SCHEME: &str = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30";
/// How much of a body that cannot be read is shown.
const SUMMARY_BYTES: usize = 30;

impl Target<'_> {
    fn kind(&self) -> &str {
        match self {
            Self::Kind(gvk) => gvk.kind,
            Self::Options(schema) => schema.go_name(),
        }
    }
}

/// Finds the kind of an object, filling in what it does not say from the target.
pub(super) fn check(map: &mut Map<String, Value>, target: Target<'_>) -> Result<Found, Status> {
    let api_version = take_text(map, "apiVersion", target)?;
    let kind = take_text(map, "kind", target)?;
    let found = find(&api_version, &kind, target)?;
    if matches!(target, Target::Kind(_)) {
        map.insert("apiVersion".to_owned(), found.gvk().api_version().into());
        map.insert("kind".to_owned(), found.kind.as_str().into());
    } else {
        map.remove("apiVersion");
        map.remove("kind");
    }
    Ok(found)
}

/// Finds the kind of `apiVersion` and `kind`, either of which may be empty.
pub(super) fn find(api_version: &str, kind: &str, target: Target<'_>) -> Result<Found, Status> {
    let expected = match target {
        Target::Kind(gvk) => gvk,
        Target::Options(schema) => {
            let gvk = Gvk::parse(api_version, kind);
            if !kind.is_empty() && kind != schema.go_name() {
                return Err(cannot_be_handled(gvk, target, &unregistered(gvk)));
            }
            return Ok(found(schema, Gvk { kind: schema.go_name(), ..gvk }));
        }
    };
    let said = Gvk::parse(api_version, kind);
    let actual = Gvk {
        group: if api_version.is_empty() { expected.group } else { said.group },
        version: if api_version.is_empty() { expected.version } else { said.version },
        kind: if kind.is_empty() { expected.kind } else { kind },
    };
    let schema = Type::of_kind(actual)
        .ok_or_else(|| cannot_be_handled(actual, target, &unregistered(actual)))?;
    if actual.kind != expected.kind {
        let why = format!(
            "converting ({}) to ({}.{}): unknown conversion",
            schema.go_path(),
            internal_package(expected.group),
            expected.kind
        );
        return Err(cannot_be_handled(actual, target, &why));
    }
    if actual != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            actual.api_version(),
            expected.api_version()
        )));
    }
    Ok(found(schema, actual))
}

fn found(schema: &'static Type, gvk: Gvk<'_>) -> Found {
    Found {
        schema,
        group: gvk.group.to_owned(),
        version: gvk.version.to_owned(),
        kind: gvk.kind.to_owned(),
    }
}

pub(super) fn take_text(
    map: &Map<String, Value>,
    field: &str,
    target: Target<'_>,
) -> Result<String, Status> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => {
            let go_field = if field == "kind" { "Kind" } else { "APIVersion" };
            let why = format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go \
                 struct field .{field} of type string ({go_field})",
                go_value(other)
            );
            Err(unrecognized(target, &why, b""))
        }
    }
}

fn internal_package(group: &str) -> &str {
    match group.split('.').next() {
        None | Some("") => "core",
        Some(first) => first,
    }
}

fn unregistered(gvk: Gvk<'_>) -> String {
    let (kind, version) = (gvk.kind, gvk.api_version());
    format!("no kind \"{kind}\" is registered for version \"{version}\" in scheme \"{SCHEME}\"")
}

/// 400: the kind is known, the content is wrong.
pub(super) fn cannot_be_handled(actual: Gvk<'_>, target: Target<'_>, why: &str) -> Status {
    Status::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: {why}",
        actual.kind,
        actual.version,
        target.kind()
    ))
}

/// 400: not even the kind could be told.
pub(super) fn unrecognized(target: Target<'_>, why: &str, body: &[u8]) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        target.kind(),
        summary(body)
    ))
}

/// Why something else than an object is none.
pub(super) fn not_an_object(value: &Value) -> String {
    format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of \
         type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
         \"json:\\\"kind,omitempty\\\"\" }}",
        go_value(value)
    )
}

/// How Go's errors name a JSON value.
pub(super) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn summary(body: &[u8]) -> String {
    let shown = &body[..body.len().min(SUMMARY_BYTES)];
    let mut text = match body.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all");
            hex
        }),
    };
    if body.len() > SUMMARY_BYTES {
        text.push_str(" ...");
    }
    text
}
