//! GET: one object, or a page of them.

use axum::response::Response;
use http::StatusCode;

use super::{Call, copied};
use crate::answer;
use crate::status::Status;

pub(super) async fn get(call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let Call { api, ctx, kind, path, query, .. } = call;
    let freshness = query.freshness()?;
    if form.is_plain()
        && let Some(found) =
            api.registry.get_stored(&ctx, kind, &path.namespace, &path.name, freshness).await?
    {
        return copied::object(kind, &found);
    }
    let found = api.registry.get_fresh(&ctx, kind, &path.namespace, &path.name, freshness).await?;
    Ok(answer::document(StatusCode::OK, form.format, &shaper.object(found)))
}

pub(super) async fn list(call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let Call { api, ctx, kind, path, query, .. } = call;
    let options = query.list()?;
    if form.is_plain()
        && let Some(list) = api.registry.list_stored(&ctx, kind, &path.namespace, &options).await?
    {
        return copied::list(kind, list);
    }
    let list = api.registry.list(&ctx, kind, &path.namespace, &options).await?;
    Ok(answer::document(StatusCode::OK, form.format, &shaper.list(list)))
}
