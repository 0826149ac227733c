//! ComponentStatuses: the store answers, and scheduler and controllers run where there is a leader.

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::Call;
use crate::object::Object;
use crate::registry::options::ObjectList;
use crate::request_info::Verb;
use crate::status::Status;
use crate::{answer, health};

/// Answers for one, or for all.
pub(super) async fn answer(call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let Call { api, ctx, kind, path, .. } = call;
    let outcomes =
        [("controller-manager", "readyz"), ("scheduler", "readyz"), ("etcd-0", "healthz")];
    let mut items = Vec::new();
    for (name, endpoint) in outcomes {
        items.push(component(name, health::look(&api, endpoint).await));
    }
    for warning in kind.strategy.warnings(&Object::default(), None) {
        ctx.warn(warning);
    }
    let document = if path.verb == Verb::Get {
        let found = items.into_iter().find(|one| one.name() == path.name);
        let missing = || Status::not_found(kind.group, kind.plural, &path.name);
        shaper.object(found.ok_or_else(missing)?)
    } else {
        let list = ObjectList {
            items,
            resource_version: 0,
            continue_token: String::new(),
            remaining: None,
        };
        shaper.list(list)
    };
    Ok(answer::document(StatusCode::OK, form.format, &document))
}

fn component(name: &str, outcome: Result<(), String>) -> Object {
    let mut object = Object::empty("v1", "ComponentStatus");
    object.set_meta("name", name);
    let condition = match outcome {
        Ok(()) => json!({ "type": "Healthy", "status": "True", "message": "ok" }),
        Err(why) => json!({ "type": "Healthy", "status": "False", "error": why }),
    };
    object.set(&["conditions"], json!([condition]));
    object
}
