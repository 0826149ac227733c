//! POST, PUT and PATCH, of objects and of the parts that have the form of the whole.

use axum::response::Response;
use futures_util::{FutureExt as _, TryFutureExt as _};
use http::StatusCode;

use super::{Call, body};
use crate::answer;
use crate::codec::FieldValidation;
use crate::context::RequestContext;
use crate::fields;
use crate::registry::Apply;
use crate::registry::options::Part;
use crate::request_info::{RequestInfo, ResourcePath, Verb};
use crate::status::Status;

pub(super) async fn create(mut call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let object = body::own_object(&mut call).await?;
    let Call { api, ctx, kind, path, .. } = call;
    let created = api.registry.create(&ctx, kind, &path.namespace, object).await?;
    Ok(answer::document(StatusCode::CREATED, form.format, &shaper.object(created)))
}

pub(super) async fn update(mut call: Call, part: Part) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let object = body::own_object(&mut call).await?;
    let Call { api, ctx, kind, path, .. } = call;
    let (updated, is_new) =
        api.registry.upsert(&ctx, kind, part, &path.namespace, &path.name, object).await?;
    let code = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer::document(code, form.format, &shaper.object(updated)))
}

pub(super) async fn patch(mut call: Call, part: Part) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let validation = FieldValidation::parse(call.query.get("fieldValidation"))?;
    let Some(patch) = body::patch(&mut call).await? else { return apply(call, part).await };
    let Call { api, ctx, kind, path, .. } = call;
    let check = |object| body::conform(&ctx, object, kind, validation);
    let patched = api
        .registry
        .patch_checked(&ctx, kind, part, &path.namespace, &path.name, &patch, &check)
        .await?;
    Ok(answer::document(StatusCode::OK, form.format, &shaper.object(patched)))
}

/// PATCH with a configuration: server-side apply, which also creates.
async fn apply(mut call: Call, part: Part) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let (config, conflicts) = body::config(&mut call).await?;
    let Call { api, ctx, kind, path, query, .. } = call;
    let may_create = || {
        let (verb, seat) = (Verb::Create, ctx.seat.clone());
        let attributes =
            RequestInfo::Resource(ResourcePath { verb, ..path.clone() }).attributes(&query);
        let user = ctx.shared_user();
        RequestContext::authorize_seated(&*api.authorizer, user, attributes, seat)
            .map_ok(drop)
            .boxed()
    };
    // What it does not know was refused with the configuration.
    fields::check(&config, kind.place(), &kind.api_version())?;
    let check = |object| body::conform(&ctx, object, kind, FieldValidation::Ignore);
    // In the form in which it would be stored, so that it can be compared with what is.
    let config = check(config)?;
    let apply = Apply { config: &config, conflicts, may_create: &may_create, check: &check };
    let (applied, is_new) =
        api.registry.apply(&ctx, kind, part, &path.namespace, &path.name, &apply).await?;
    let code = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer::document(code, form.format, &shaper.object(applied)))
}
