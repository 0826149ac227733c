//! The parts of objects that have paths of their own.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{Call, body, connect, log, proxy, read, token, write};
use crate::answer;
use crate::fields::{self, Place};
use crate::negotiate::{Offer, negotiate};
use crate::object::Object;
use crate::registry::options::Part;
use crate::request_info::Verb;
use crate::resources::pod;
use crate::schema::Gvk;
use crate::status::{FieldError, Status};

const SCALE: Gvk<'static> = Gvk::new("autoscaling", "v1", "Scale");

/// Handles a request for a part.
pub(crate) async fn subresource(call: Call) -> Result<Response, Status> {
    let part = call.kind.subresource(&call.path.subresource).ok_or_else(Status::no_such_path)?;
    if !part.verbs.contains(&call.path.verb) {
        return Err(call.refuse_verb());
    }
    match (part.name, call.path.verb) {
        ("status", Verb::Get) => read::get(call).await,
        ("status", Verb::Update) => write::update(call, Part::Status).await,
        ("status", Verb::Patch) => write::patch(call, Part::Status).await,
        ("ephemeralcontainers", Verb::Get) => read::get(call).await,
        ("ephemeralcontainers", Verb::Update) => write::update(call, Part::Ephemeral).await,
        ("ephemeralcontainers", Verb::Patch) => write::patch(call, Part::Ephemeral).await,
        ("resize", Verb::Get) => read::get(call).await,
        ("resize", Verb::Update) => write::update(call, Part::Resize).await,
        ("resize", Verb::Patch) => write::patch(call, Part::Resize).await,
        ("approval", Verb::Get) => read::get(call).await,
        ("approval", Verb::Update) => write::update(call, Part::Approval).await,
        ("approval", Verb::Patch) => write::patch(call, Part::Approval).await,
        ("finalize", Verb::Update) => write::update(call, Part::Finalize).await,
        ("scale", _) => scale(call).await,
        ("binding", Verb::Create) => bind(call).await,
        ("token", Verb::Create) => token::create(call).await,
        ("eviction", Verb::Create) => evict(call).await,
        ("log", Verb::Get) => log::log(call).await,
        ("proxy", _) => proxy::proxy(call).await,
        ("attach" | "exec" | "portforward", _) => connect::connect(call).await,
        _ => Err(call.refuse_verb()),
    }
}

async fn scale(mut call: Call) -> Result<Response, Status> {
    let form = negotiate(&call.headers, Offer::Protobuf)?;
    let registry = Arc::clone(&call.api.registry);
    let (namespace, name) = (call.path.namespace.clone(), call.path.name.clone());
    let scale = match call.path.verb {
        Verb::Update => {
            let scale = body::object(&mut call, SCALE).await?;
            registry.update_scale(&call.ctx, call.kind, &namespace, &name, &scale).await?
        }
        Verb::Patch => {
            if let Some(patch) = body::patch(&mut call).await? {
                registry.patch_scale(&call.ctx, call.kind, &namespace, &name, &patch).await?
            } else {
                let (config, conflicts) = body::config(&mut call).await?;
                fields::check(&config, Place::of_kind(SCALE), &SCALE.api_version())?;
                registry
                    .apply_scale(&call.ctx, call.kind, &namespace, &name, &config, conflicts)
                    .await?
            }
        }
        _ => registry.scale(&call.ctx, call.kind, &namespace, &name).await?,
    };
    Ok(answer::document(StatusCode::OK, form.format, scale.value()))
}

async fn bind(mut call: Call) -> Result<Response, Status> {
    let binding = body::object(&mut call, Gvk::new("", "v1", "Binding")).await?;
    let Call { api, ctx, kind, path, headers, .. } = call;
    let form = negotiate(&headers, Offer::Protobuf)?;
    check_name(&binding, &path.name)?;
    api.registry.bind(&ctx, kind, &path.namespace, &path.name, &binding).await?;
    Ok(answer::document(StatusCode::CREATED, form.format, &Status::created().to_value()))
}

/// The same where the path does not say which pod, but the binding's name does.
pub(super) async fn bind_named(mut call: Call) -> Result<Response, Status> {
    let binding = body::object(&mut call, Gvk::new("", "v1", "Binding")).await?;
    let Call { api, ctx, path, headers, .. } = call;
    let form = negotiate(&headers, Offer::Protobuf)?;
    let (name, namespace) = (binding.name(), binding.namespace());
    if !namespace.is_empty() && namespace != path.namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the \
                   request";
        return Err(Status::bad_request(why));
    }
    if name.is_empty() {
        let missing = FieldError::required("metadata.name", "name is required");
        return Err(Status::invalid("", "Binding", "", &[missing]));
    }
    api.registry.bind(&ctx, &pod::KIND, &path.namespace, name, &binding).await?;
    Ok(answer::document(StatusCode::CREATED, form.format, &Status::created().to_value()))
}

/// Deletes a pod as its eviction asks, if its disruption budget lets it go.
async fn evict(mut call: Call) -> Result<Response, Status> {
    let eviction = body::object(&mut call, Gvk::new("policy", "v1", "Eviction")).await?;
    let Call { api, ctx, kind, path, headers, .. } = call;
    let form = negotiate(&headers, Offer::Protobuf)?;
    check_name(&eviction, &path.name)?;
    let options = body::options_of(eviction.at("/deleteOptions").unwrap_or(&Value::Null))?;
    api.registry.evict(&ctx, kind, &path.namespace, &path.name, &eviction, &options).await?;
    Ok(answer::document(StatusCode::CREATED, form.format, &Status::created().to_value()))
}

fn check_name(object: &Object, name: &str) -> Result<(), Status> {
    if object.name().is_empty() || object.name() == name {
        return Ok(());
    }
    Err(Status::bad_request("name in URL does not match name in the object"))
}
