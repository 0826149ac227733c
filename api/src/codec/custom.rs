//! Objects of custom kinds: what their schema says takes the place of the table of types.

use serde_json::{Map, Value};

use super::{Decoded, FieldValidation, Format, Target, conform, kind, text};
use crate::crd::{self, structural::Structural};
use crate::schema::{Gvk, Type};
use crate::status::{FieldError, Status};

/// The media types that a body may have: custom kinds have no protobuf.
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// A type that has metadata, to conform that of an object by.
const HAS_METADATA: Gvk<'static> = Gvk::new("", "v1", "ConfigMap");

/// Reads a body that must be an object of this custom kind.
pub fn decode_custom(
    body: &[u8],
    format: Format,
    gvk: Gvk<'_>,
    schema: &Structural,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if body.len() > super::BODY_BYTES_MAX {
        return Err(Status::too_large(format_args!("limit is {}", super::BODY_BYTES_MAX)));
    }
    if format == Format::Protobuf {
        return Err(Status::unsupported_media_type(&MEDIA_TYPES));
    }
    let target = Target::Kind(gvk);
    let tree = text::read(body, format).map_err(|why| kind::unrecognized(target, &why, body))?;
    decode_tree(tree, gvk, schema, validation, body)
}

/// Checks a value that was made otherwise, such as by a patch.
pub fn conform_custom(
    value: Value,
    gvk: Gvk<'_>,
    schema: &Structural,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    decode_tree(text::Tree::of(value), gvk, schema, validation, b"")
}

fn decode_tree(
    tree: text::Tree,
    gvk: Gvk<'_>,
    schema: &Structural,
    validation: FieldValidation,
    body: &[u8],
) -> Result<Decoded, Status> {
    let target = Target::Kind(gvk);
    let Value::Object(mut map) = tree.value else {
        return Err(kind::unrecognized(target, &kind::not_an_object(&tree.value), body));
    };
    check_type(&map, gvk, body)?;
    let mut unknown =
        conform_metadata(&mut map).map_err(|why| kind::cannot_be_handled(gvk, target, &why))?;
    let mut value = Value::Object(map);
    unknown.extend(crd::prune(&mut value, schema));
    let warnings = super::judge(validation, &tree.repeats, &unknown)
        .map_err(|why| kind::cannot_be_handled(gvk, target, &why))?;
    Ok(Decoded { value, warnings })
}

/// The object must say what it is: nothing is filled in.
fn check_type(map: &Map<String, Value>, gvk: Gvk<'_>, body: &[u8]) -> Result<(), Status> {
    let target = Target::Kind(gvk);
    let text = |field: &str| kind::take_text(map, field, target);
    let (api_version, own_kind) = (text("apiVersion")?, text("kind")?);
    if own_kind.is_empty() {
        let shown = Value::Object(map.clone());
        let why = format!("Object 'Kind' is missing in '{shown}'");
        return Err(kind::unrecognized(target, &why, body));
    }
    if api_version != gvk.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            gvk.api_version()
        )));
    }
    if own_kind != gvk.kind {
        let name = map.get("metadata").and_then(|metadata| metadata.get("name"));
        let name = name.and_then(Value::as_str).unwrap_or_default();
        let error = FieldError::invalid("kind", own_kind, format!("must be {}", gvk.kind));
        return Err(Status::invalid(gvk.group, gvk.kind, name, &[error]));
    }
    Ok(())
}

/// Brings the metadata into its form; gives the paths of unknown fields.
pub(crate) fn conform_metadata(map: &mut Map<String, Value>) -> Result<Vec<String>, String> {
    let Some(metadata) = map.remove("metadata") else { return Ok(Vec::new()) };
    let schema = Type::of_kind(HAS_METADATA).ok_or("metadata must be among the types")?;
    let alone = Map::from_iter([("metadata".to_owned(), metadata)]);
    let mut conformed = conform::conform(alone, schema)?;
    map.append(&mut conformed.map);
    Ok(conformed.unknown)
}
