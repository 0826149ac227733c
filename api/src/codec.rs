//! Bodies of requests to JSON values and back: JSON, YAML and protobuf, checked by the table of
//! types ([`crate::schema`]).
//!
//! What comes out has only fields that its type knows, each of the right type, without nulls, with
//! times and quantities in their canonical form. Refusals use Kubernetes' words, which clients and
//! conformance tests read.

mod conform;
mod custom;
mod kind;
mod protobuf;
mod scalar;
mod text;

use serde_json::Value;

use crate::schema::{Gvk, Type};
use crate::status::Status;

pub(crate) use custom::conform_metadata;
pub use custom::{conform_custom, decode_custom};
pub use kind::Target;
pub(crate) use text::Repeats;

/// Largest body that is read.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// The media types that a body may have.
pub const MEDIA_TYPES: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON text.
    Json,
    /// YAML text.
    Yaml,
    /// `k8s\0` and a `runtime.Unknown`.
    Protobuf,
}

impl Format {
    /// The form that a `Content-Type` names; JSON where there is none.
    pub fn of_content_type(content_type: &str) -> Result<Self, Status> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        match media.to_ascii_lowercase().as_str() {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" => Ok(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            _ => Err(Status::unsupported_media_type(&MEDIA_TYPES)),
        }
    }
}

/// What happens to fields that the type does not know, and to fields given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// The request is refused.
    Strict,
    /// They are dropped, and the client is warned.
    #[default]
    Warn,
    /// They are dropped.
    Ignore,
}

impl FieldValidation {
    /// Reads the query parameter `fieldValidation`.
    pub fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            "Ignore" => Ok(Self::Ignore),
            other => Err(Status::bad_request(format!(
                "invalid fieldValidation: Unsupported value: \"{other}\": supported values: \
                 \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// A body that was understood.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind`.
    pub value: Value,
    /// What the client should be told.
    pub warnings: Vec<String>,
}

/// Reads a body that must be of `target`'s kind.
pub fn decode(
    body: &[u8],
    format: Format,
    target: Target<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Status::too_large(format_args!("limit is {BODY_BYTES_MAX}")));
    }
    if format == Format::Protobuf {
        let value = protobuf::decode(body, target)?;
        return Ok(Decoded { value, warnings: Vec::new() });
    }
    let tree = text::read(body, format).map_err(|why| {
        let why = if format == Format::Json {
            format!("couldn't get version/kind; json parse error: {why}")
        } else {
            why
        };
        kind::unrecognized(target, &why, body)
    })?;
    decode_tree(tree, target, validation, body)
}

/// Checks a value that was made otherwise, such as by a patch: `target`'s kind, fields and types.
pub fn conform(
    value: Value,
    target: Target<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    decode_tree(text::Tree::of(value), target, validation, b"")
}

/// Reads a JSON text, with the keys it gives more than once.
pub(crate) fn read_json(body: &[u8]) -> Result<(Value, Repeats), String> {
    let tree = text::read(body, Format::Json)?;
    Ok((tree.value, tree.repeats))
}

/// Reads a YAML text, likewise.
pub(crate) fn read_yaml(body: &[u8]) -> Result<(Value, Repeats), String> {
    let tree = text::read(body, Format::Yaml)?;
    Ok((tree.value, tree.repeats))
}

/// Encodes an object as `application/vnd.kubernetes.protobuf`; `None` when its kind is not built in.
pub fn encode_protobuf(object: &Value) -> Option<Vec<u8>> {
    protobuf::encode(object)
}

fn decode_tree(
    tree: text::Tree,
    target: Target<'_>,
    validation: FieldValidation,
    body: &[u8],
) -> Result<Decoded, Status> {
    let Value::Object(mut map) = tree.value else {
        let why = kind::not_an_object(&tree.value);
        return Err(kind::unrecognized(target, &why, body));
    };
    let found = kind::check(&mut map, target)?;
    let conformed = conform::conform(map, found.schema)
        .map_err(|why| kind::cannot_be_handled(found.gvk(), target, &why))?;
    let warnings = judge(validation, &tree.repeats, &conformed.unknown)
        .map_err(|why| kind::cannot_be_handled(found.gvk(), target, &why))?;
    Ok(Decoded { value: Value::Object(conformed.map), warnings })
}

/// What comes of keys given again and of unknown fields: warnings, or the reason of a refusal.
fn judge(
    validation: FieldValidation,
    repeats: &Repeats,
    unknown: &[String],
) -> Result<Vec<String>, String> {
    let unknown = unknown.iter().map(|path| format!("unknown field \"{path}\""));
    match validation {
        FieldValidation::Strict => {
            let errors: Vec<String> = repeats.errors().into_iter().chain(unknown).collect();
            if errors.is_empty() {
                return Ok(Vec::new());
            }
            Err(format!("strict decoding error: {}", errors.join(", ")))
        }
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(repeats.warnings().into_iter().chain(unknown).collect()),
    }
}

/// The kind that an object says it is.
#[derive(Debug)]
struct Found {
    schema: &'static Type,
    group: String,
    version: String,
    kind: String,
}

impl Found {
    fn gvk(&self) -> Gvk<'_> {
        Gvk::new(&self.group, &self.version, &self.kind)
    }
}

#[cfg(test)]
mod tests;
