//! GET: one object, or a page of them.

use axum::response::Response;
use http::StatusCode;

use super::{Call, copied};
use crate::answer;
use crate::negotiate::Form;
use crate::registry::options::ObjectList;
use crate::shape::Shaper;
use crate::status::Status;

/// Lists of more objects take milliseconds to encode.
const LONG: usize = 200;

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
    Ok(listed(list, form, shaper))
}

/// A page of objects as the client takes it.
pub(super) fn listed(list: ObjectList, form: Form, shaper: Shaper) -> Response {
    let is_long = list.items.len() > LONG;
    let encode = move || answer::document(StatusCode::OK, form.format, &shaper.list(list));
    if is_long { answer::at_length(encode) } else { encode() }
}
