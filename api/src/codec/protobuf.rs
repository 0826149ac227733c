//! Kubernetes' protobuf: four bytes `k8s\0`, then a `runtime.Unknown` with the type and the message.
//!
//! ```text
//! 6b 38 73 00 | Unknown { 1: TypeMeta { 1: apiVersion, 2: kind }, 2: raw message,
//!             |           3: contentEncoding, 4: contentType }
//! ```
//!
//! One table drives both ways for every built-in type; there is no code per kind.

mod read;
mod wire;
mod write;

use serde_json::{Map, Value};

use super::kind::{self, Target};
use crate::schema::{Gvk, Type};
use crate::status::Status;
use wire::Wire;

/// What begins every message.
const MAGIC: &[u8] = b"k8s\0";

/// A `runtime.Unknown`, read.
#[derive(Default)]
struct Unknown<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
    content_encoding: String,
    content_type: String,
}

/// Reads an enveloped message that must be of `target`'s kind.
pub(super) fn decode(body: &[u8], target: Target<'_>) -> Result<Value, Status> {
    let refuse = |why: String| kind::unrecognized(target, &why, body);
    let unknown = envelope(body).map_err(refuse)?;
    if !unknown.content_encoding.is_empty() {
        return Err(refuse(format!(
            "content encoding {:?} is not supported",
            unknown.content_encoding
        )));
    }
    let found = kind::find(&unknown.api_version, &unknown.kind, target)?;
    let mut map = Map::new();
    read::message(unknown.raw, found.schema, &mut map, 0)
        .map_err(|why| kind::cannot_be_handled(found.gvk(), target, &why.to_string()))?;
    if matches!(target, Target::Kind(_)) {
        map.insert("apiVersion".to_owned(), found.gvk().api_version().into());
        map.insert("kind".to_owned(), found.kind.into());
    }
    Ok(Value::Object(map))
}

/// Writes an object of a built-in kind, enveloped.
pub(super) fn encode(object: &Value) -> Option<Vec<u8>> {
    let map = object.as_object()?;
    let (api_version, kind) = (map.get("apiVersion")?.as_str()?, map.get("kind")?.as_str()?);
    let gvk = Gvk::parse(api_version, kind);
    let schema = Type::of_kind(gvk)
        .or_else(|| (kind == "Status").then(|| Type::named(crate::schema::STATUS))?)?;
    let mut type_meta = Vec::new();
    wire::put_bytes(1, api_version.as_bytes(), &mut type_meta);
    wire::put_bytes(2, kind.as_bytes(), &mut type_meta);
    let mut raw = Vec::new();
    write::message(map, schema, &mut raw);
    let mut out = MAGIC.to_vec();
    wire::put_bytes(1, &type_meta, &mut out);
    wire::put_bytes(2, &raw, &mut out);
    wire::put_bytes(3, b"", &mut out);
    wire::put_bytes(4, b"", &mut out);
    Some(out)
}

fn envelope(body: &[u8]) -> Result<Unknown<'_>, String> {
    let Some(rest) = body.strip_prefix(MAGIC) else {
        return Err("provided data does not appear to be a protobuf message, expected prefix \
                    [107 56 115 0]"
            .to_owned());
    };
    let mut unknown = Unknown::default();
    for record in wire::records(rest) {
        match record.map_err(|e| e.to_string())? {
            (1, Wire::Bytes(meta)) => type_meta(meta, &mut unknown)?,
            (2, Wire::Bytes(raw)) => unknown.raw = raw,
            (3, Wire::Bytes(text)) => unknown.content_encoding = utf8(text)?,
            (4, Wire::Bytes(text)) => unknown.content_type = utf8(text)?,
            _ => {}
        }
    }
    if !matches!(unknown.content_type.as_str(), "" | "application/vnd.kubernetes.protobuf") {
        return Err(format!("content type {:?} is not protobuf", unknown.content_type));
    }
    Ok(unknown)
}

fn type_meta(meta: &[u8], unknown: &mut Unknown<'_>) -> Result<(), String> {
    for record in wire::records(meta) {
        match record.map_err(|e| e.to_string())? {
            (1, Wire::Bytes(text)) => unknown.api_version = utf8(text)?,
            (2, Wire::Bytes(text)) => unknown.kind = utf8(text)?,
            _ => {}
        }
    }
    Ok(())
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "proto: invalid UTF-8 in a string".to_owned())
}
