//! `POST …/serviceaccounts/NAME/token`: a token for who may ask for one.

use axum::response::Response;
use http::StatusCode;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};

use super::{Call, body};
use crate::admission::{Admit, Operation};
use crate::answer;
use crate::negotiate::{Offer, negotiate};
use crate::object::Object;
use crate::registry::seconds as timestamp;
use crate::schema::Gvk;
use crate::status::{FieldError, Status};

const GROUP: &str = "authentication.k8s.io";
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
const SECONDS_DEFAULT: i64 = 3600;

pub(super) async fn create(mut call: Call) -> Result<Response, Status> {
    let mut request = body::object(&mut call, Gvk::new(GROUP, "v1", "TokenRequest")).await?;
    let Call { api, ctx, kind, path, headers, .. } = call;
    let form = negotiate(&headers, Offer::Protobuf)?;
    check(&request, &path.name)?;
    request.set_default(&["spec", "expirationSeconds"], SECONDS_DEFAULT);
    let account = api.registry.get(&ctx, kind, &path.namespace, &path.name).await?;
    let account: ServiceAccount = account.into_typed()?;
    let admit = Admit {
        ctx: &ctx,
        registry: &api.registry,
        kind,
        subresource: "token",
        operation: Operation::Create,
        namespace: &path.namespace,
        name: &path.name,
        old: None,
    };
    api.registry.admission().validate(&admit, Some(&request)).await?;
    let bound = api.tokens.bind(&account, request.at("/spec/boundObjectRef")).await?;
    let mut audiences = strings(request.at("/spec/audiences"));
    if audiences.is_empty() {
        audiences = api.tokens.audiences();
        request.set(&["spec", "audiences"], json!(audiences));
    }
    let seconds = request.i64_at("/spec/expirationSeconds");
    let issued = api.tokens.issue(&account, &audiences, seconds, bound).await?;
    request.set_meta("name", path.name.as_str());
    request.set_meta("namespace", path.namespace.as_str());
    request.set_meta("creationTimestamp", timestamp(ctx.now));
    let expires = timestamp(issued.expires);
    request.set(&["status"], json!({ "token": issued.token, "expirationTimestamp": expires }));
    Ok(answer::document(StatusCode::CREATED, form.format, request.value()))
}

fn check(request: &Object, name: &str) -> Result<(), Status> {
    if !request.name().is_empty() && request.name() != name {
        return Err(Status::bad_request("name in URL does not match name in TokenRequest object"));
    }
    let Some(seconds) = request.i64_at("/spec/expirationSeconds") else { return Ok(()) };
    let why = match seconds {
        ..SECONDS_MIN => "may not specify a duration less than 10 minutes",
        SECONDS_MAX.. => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, why);
    Err(Status::invalid(GROUP, "TokenRequest", name, &[error]))
}

pub(super) fn strings(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
