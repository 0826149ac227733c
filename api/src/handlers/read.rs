//! GET: one object, or a page of them.

use axum::response::Response;
use http::StatusCode;

use super::Call;
use crate::answer;
use crate::status::Status;

pub(super) async fn get(call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let Call { api, ctx, kind, path, query, .. } = call;
    let found =
        api.registry.get_fresh(&ctx, kind, &path.namespace, &path.name, query.freshness()?).await?;
    Ok(answer::document(StatusCode::OK, form.format, &shaper.object(found)))
}

pub(super) async fn list(call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let Call { api, ctx, kind, path, query, .. } = call;
    let list = api.registry.list(&ctx, kind, &path.namespace, &query.list()?).await?;
    Ok(answer::document(StatusCode::OK, form.format, &shaper.list(list)))
}
