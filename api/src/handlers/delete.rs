//! DELETE: one object, or all that a list selects.

use axum::response::Response;
use http::StatusCode;

use super::{Call, body};
use crate::answer;
use crate::registry::options::{Deleted, ListOptions, ObjectList};
use crate::status::Status;

pub(super) async fn delete(mut call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let options = body::delete_options(&mut call).await?;
    call.ctx.dry_run |= options.dry_run;
    let Call { api, ctx, kind, path, .. } = call;
    let deleted = api.registry.delete(&ctx, kind, &path.namespace, &path.name, &options).await?;
    let value = match deleted {
        Deleted::Gone(object) if !kind.strategy.returns_deleted() => {
            Status::success(kind.group, kind.plural, object.name(), object.uid()).to_value()
        }
        Deleted::Gone(object) | Deleted::Terminating(object) => shaper.object(object),
    };
    Ok(answer::document(StatusCode::OK, form.format, &value))
}

pub(super) async fn delete_collection(mut call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let options = body::delete_options(&mut call).await?;
    call.ctx.dry_run |= options.dry_run;
    let Call { api, ctx, kind, path, query, .. } = call;
    let list = ListOptions { limit: 0, continue_token: String::new(), ..query.list()? };
    let items =
        api.registry.delete_collection(&ctx, kind, &path.namespace, &list, &options).await?;
    let resource_version = api.registry.kv().revision().get();
    let list = ObjectList { items, resource_version, ..ObjectList::default() };
    Ok(super::read::listed(list, form, shaper))
}
