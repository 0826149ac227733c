//! Bodies of requests as objects, options and patches.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use super::{Call, options};
use crate::codec::{self, BODY_BYTES_MAX, FieldValidation, Format, Target};
use crate::context::RequestContext;
use crate::fields::Conflicts;
use crate::object::Object;
use crate::patch::{self, PatchType};
use crate::query;
use crate::registry::options::{DeleteOptions, Patch};
use crate::registry::strategy::Kind;
use crate::schema::{DELETE_OPTIONS, Gvk, Type};
use crate::status::Status;

/// The whole body, as far as it is not too large.
pub(super) async fn read(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::too_large(format!("limit is {BODY_BYTES_MAX}")))
        }
        Err(error) => Err(Status::bad_request(format!("reading the body: {error}"))),
    }
}

/// The kind of a body that must be an object of `kind`.
pub(super) fn gvk(kind: &'static Kind) -> Gvk<'static> {
    Gvk::new(kind.group, kind.version, kind.kind)
}

/// The object in the body of `call`, of the kind that its path is about.
pub(super) async fn own_object(call: &mut Call) -> Result<Object, Status> {
    let gvk = gvk(call.kind);
    let Some(version) = call.kind.strategy.definition() else { return object(call, gvk).await };
    let (body, format, validation) = raw(call).await?;
    let decoded = codec::decode_custom(&body, format, gvk, &version.schema, validation)?;
    sent(&call.ctx, &decoded.value);
    take(&call.ctx, decoded)
}

/// The object in the body of `call`, which must be of this kind.
pub(super) async fn object(call: &mut Call, gvk: Gvk<'_>) -> Result<Object, Status> {
    let (body, format, validation) = raw(call).await?;
    let decoded = codec::decode(&body, format, Target::Kind(gvk), validation)?;
    sent(&call.ctx, &decoded.value);
    take(&call.ctx, decoded)
}

async fn raw(call: &mut Call) -> Result<(Bytes, Format, FieldValidation), Status> {
    options::check_write(&call.query, call.path.verb)?;
    let validation = FieldValidation::parse(call.query.get("fieldValidation"))?;
    let format = Format::of_content_type(content_type(&call.headers))?;
    let body = read(std::mem::take(&mut call.body)).await?;
    Ok((body, format, validation))
}

/// What comes out of a patch, as an object of its kind.
pub(super) fn conform(
    ctx: &RequestContext,
    object: Object,
    kind: &'static Kind,
    validation: FieldValidation,
) -> Result<Object, Status> {
    let (value, gvk) = (object.into_value(), gvk(kind));
    let decoded = match kind.strategy.definition() {
        Some(version) => codec::conform_custom(value, gvk, &version.schema, validation)?,
        None => codec::conform(value, Target::Kind(gvk), validation)?,
    };
    take(ctx, decoded)
}

/// The patch in the body of `call`; `None` where it is a configuration for [`config`].
pub(super) async fn patch(call: &mut Call) -> Result<Option<Patch>, Status> {
    let content_type = content_type(&call.headers);
    let is_apply = patch::is_apply(content_type);
    options::check_patch(&call.query, is_apply)?;
    if is_apply {
        return Ok(None);
    }
    // The lists of a custom kind have no merge keys to go by, nor has a part of it.
    let is_custom = call.kind.strategy.definition().is_some();
    let taken = if is_custom { &patch::CUSTOM_MEDIA_TYPES[..] } else { &patch::MEDIA_TYPES[..] };
    let kind = PatchType::of_content_type(content_type)
        .filter(|kind| !is_custom || *kind != PatchType::Strategic)
        .ok_or_else(|| Status::unsupported_media_type(taken))?;
    let validation = FieldValidation::parse(call.query.get("fieldValidation"))?;
    let body = read(std::mem::take(&mut call.body)).await?;
    let read = kind.read(&body, validation)?;
    for warning in read.warnings {
        call.ctx.warn(warning);
    }
    let value = read.value;
    sent(&call.ctx, &value);
    Ok(Some(match kind {
        PatchType::Json => Patch::Json(value),
        PatchType::Merge => Patch::Merge(value),
        PatchType::Strategic => Patch::Strategic(value),
    }))
}

/// The configuration that `call` applies.
pub(super) async fn config(call: &mut Call) -> Result<(Object, Conflicts), Status> {
    let validation = FieldValidation::parse(call.query.get("fieldValidation"))?;
    let body = read(std::mem::take(&mut call.body)).await?;
    let read = patch::read_config(&body, validation)?;
    for warning in read.warnings {
        call.ctx.warn(warning);
    }
    let config = Object::new(read.value)
        .ok_or_else(|| Status::bad_request("error decoding YAML: it must be an object"))?;
    sent(&call.ctx, config.value());
    let is_forced = call.query.is_true("force");
    Ok((config, if is_forced { Conflicts::Force } else { Conflicts::Refuse }))
}

/// How to delete: from the body where there is one, else from the query.
pub(super) async fn delete_options(call: &mut Call) -> Result<DeleteOptions, Status> {
    let body = read(std::mem::take(&mut call.body)).await?;
    if body.is_empty() {
        return Ok(DeleteOptions {
            grace_period_seconds: call.query.number("gracePeriodSeconds")?,
            propagation: call.query.propagation()?,
            ..DeleteOptions::default()
        });
    }
    let options = Type::named(DELETE_OPTIONS)
        .ok_or_else(|| Status::internal("DeleteOptions must be among the types"))?;
    let format = Format::of_content_type(content_type(&call.headers))?;
    let decoded = codec::decode(&body, format, Target::Options(options), FieldValidation::Ignore)?;
    sent(&call.ctx, &decoded.value);
    options_of(&decoded.value)
}

/// What the audit log is told of a body.
fn sent(ctx: &RequestContext, value: &Value) {
    if let Some(trail) = &ctx.trail {
        trail.sent(value);
    }
}

/// How to delete, as a `DeleteOptions` document says it.
pub(super) fn options_of(value: &Value) -> Result<DeleteOptions, Status> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let given = |pointer: &str| Some(text(pointer).to_owned()).filter(|text| !text.is_empty());
    let dry_run: Vec<&str> = value
        .get("dryRun")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    Ok(DeleteOptions {
        grace_period_seconds: value.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation: query::propagation(
            text("/propagationPolicy"),
            value.get("orphanDependents").and_then(Value::as_bool),
        )?,
        uid: given("/preconditions/uid"),
        resource_version: given("/preconditions/resourceVersion"),
        dry_run: query::check_dry_run(&dry_run)?,
    })
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn take(ctx: &RequestContext, decoded: codec::Decoded) -> Result<Object, Status> {
    for warning in decoded.warnings {
        ctx.warn(warning);
    }
    Object::new(decoded.value).ok_or_else(|| Status::internal("a decoded object must be one"))
}
