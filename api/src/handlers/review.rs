//! The reviews: questions that are asked by creating an object, which comes back with the answer in
//! its status and is not stored. Who am I; whose token is this; may they; may I; what may I.

use std::collections::BTreeMap;

use axum::response::Response;
use http::StatusCode;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use super::token::strings;
use super::{Call, body};
use crate::answer;
use crate::authn::User;
use crate::authz::node::node_of;
use crate::authz::{Attributes, AuthorizationConfig, Decision, ResourceAttributes, decide_seated};
use crate::context::RequestContext;
use crate::negotiate::{Offer, negotiate};
use crate::object::Object;
use crate::selectors::LabelSelector;
use crate::state::Api;
use crate::status::{FieldError, Status};
use crate::tokens::TokenError;

pub(super) async fn create(mut call: Call) -> Result<Response, Status> {
    let gvk = body::gvk(call.kind);
    let mut object = body::object(&mut call, gvk).await?;
    let Call { api, ctx, kind, path, headers, .. } = call;
    let form = negotiate(&headers, Offer::Protobuf)?;
    let status = match kind.kind {
        "SelfSubjectReview" => json!({ "userInfo": user_info(ctx.user()) }),
        "TokenReview" => token(&api, &object).await?,
        "SelfSubjectAccessReview" => access(&api, &ctx, ctx.user(), &object).await?,
        "SelfSubjectRulesReview" => rules(&api, ctx.user(), &object)?,
        "LocalSubjectAccessReview" => {
            check_namespace(&object, &path.namespace)?;
            access(&api, &ctx, &subject(&object)?, &object).await?
        }
        "SubjectAccessReview" => access(&api, &ctx, &subject(&object)?, &object).await?,
        _ => return Err(Status::no_such_path()),
    };
    object.set(&["status"], status);
    Ok(answer::document(StatusCode::CREATED, form.format, object.value()))
}

fn user_info(user: &User) -> Value {
    let mut info = json!({ "username": user.name });
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

async fn token(api: &Api, review: &Object) -> Result<Value, Status> {
    let token = review.str_at("/spec/token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let asked = strings(review.at("/spec/audiences"));
    let audiences = if asked.is_empty() { api.tokens.audiences() } else { asked.clone() };
    if let Some(found) = by_others(api, token, &audiences).await {
        let own = audiences.iter().filter(|one| api.tokens.audiences().contains(one));
        let own: Vec<&String> = own.collect();
        return Ok(match found {
            Ok(user) => {
                json!({ "authenticated": true, "user": user_info(&user), "audiences": own })
            }
            Err(why) => json!({ "user": {}, "error": format!("[invalid bearer token, {why}]") }),
        });
    }
    Ok(match api.tokens.authenticate(token, &audiences).await {
        Ok((user, found)) => {
            json!({ "authenticated": true, "user": user_info(&user), "audiences": found })
        }
        Err(TokenError::Unavailable(status)) => return Err(status),
        Err(error) => json!({ "user": {}, "error": format!("[invalid bearer token, {error}]") }),
    })
}

/// Whose token it is by what issuers elsewhere say, whose tokens are for the API.
async fn by_others(api: &Api, token: &str, audiences: &[String]) -> Option<Result<User, String>> {
    let is_for_api = audiences.iter().any(|one| api.tokens.audiences().contains(one));
    api.issuers.as_ref().filter(|_| is_for_api)?.authenticate(token).await
}

/// Whom a review is about.
fn subject(review: &Object) -> Result<User, Status> {
    let name = review.str_at("/spec/user").to_owned();
    let groups = strings(review.at("/spec/groups"));
    if name.is_empty() && groups.is_empty() {
        let why = "at least one of user or group must be specified";
        return Err(invalid(review, FieldError::invalid("spec.user", "", why)));
    }
    let mut extra = BTreeMap::new();
    for (key, values) in review.at("/spec/extra").and_then(Value::as_object).into_iter().flatten() {
        extra.insert(key.to_ascii_lowercase(), strings(Some(values)));
    }
    let uid = review.str_at("/spec/uid").to_owned();
    Ok(User { name, uid, groups, extra, ..User::default() })
}

fn check_namespace(review: &Object, namespace: &str) -> Result<(), Status> {
    if review.at("/spec/nonResourceAttributes").is_some_and(|found| !found.is_null()) {
        let why = "disallowed on this kind of request";
        return Err(invalid(
            review,
            FieldError::invalid("spec.nonResourceAttributes", Value::Null, why),
        ));
    }
    let found = review.str_at("/spec/resourceAttributes/namespace");
    if found != namespace {
        let why = "must match metadata.namespace";
        return Err(invalid(
            review,
            FieldError::invalid("spec.resourceAttributes.namespace", found, why),
        ));
    }
    Ok(())
}

fn invalid(review: &Object, error: FieldError) -> Status {
    Status::invalid("authorization.k8s.io", review.kind(), review.name(), &[error])
}

async fn access(
    api: &Api,
    ctx: &RequestContext,
    user: &User,
    review: &Object,
) -> Result<Value, Status> {
    let (attributes, seat) = (attributes(review)?, ctx.seat.as_deref());
    let verdict = decide_seated(&*api.authorizer, user, &attributes, seat).await?;
    let mut status = json!({ "allowed": verdict.is_allowed() });
    if verdict.decision == Decision::Deny {
        status["denied"] = true.into();
    }
    for (field, text) in [("reason", verdict.reason), ("evaluationError", verdict.error)] {
        if !text.is_empty() {
            status[field] = text.into();
        }
    }
    Ok(status)
}

/// What a review asks about: exactly one of the two that it can.
fn attributes(review: &Object) -> Result<Attributes, Status> {
    let part = |name: &str| review.at(&format!("/spec/{name}")).filter(|part| !part.is_null());
    match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(resource), None) => Ok(Attributes::Resource(resource_attributes(resource))),
        (None, Some(path)) => {
            let text = |field: &str| path[field].as_str().unwrap_or_default().to_owned();
            Ok(Attributes::Path { verb: text("verb"), path: text("path") })
        }
        (None, None) => Err(invalid(
            review,
            FieldError::invalid(
                "spec.resourceAttributes",
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ),
        )),
        (Some(_), Some(_)) => Err(invalid(
            review,
            FieldError::invalid(
                "spec.nonResourceAttributes",
                Value::Null,
                "cannot be specified in combination with resourceAttributes",
            ),
        )),
    }
}

fn resource_attributes(asked: &Value) -> ResourceAttributes {
    let text = |field: &str| asked[field].as_str().unwrap_or_default().to_owned();
    let requirements = asked["fieldSelector"]["requirements"].as_array().into_iter().flatten();
    let selected = requirements.filter(|one| one["operator"] == "In").filter_map(|one| {
        let value = one["values"].as_array().filter(|values| values.len() == 1)?[0].as_str()?;
        Some((one["key"].as_str()?.to_owned(), value.to_owned()))
    });
    let labels = json!({ "matchExpressions": asked["labelSelector"]["requirements"] });
    let labels = LabelSelector::from_value(&labels).unwrap_or_default();
    ResourceAttributes {
        verb: text("verb").into(),
        group: text("group"),
        version: text("version"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        selected: selected.collect(),
        labels: labels.requirements().to_vec(),
    }
}

fn rules(api: &Api, user: &User, review: &Object) -> Result<Value, Status> {
    let namespace = review.str_at("/spec/namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let config = api.authorization.config();
    let config = config.as_ref();
    let (rules, mut errors) = match config {
        Some(config) if !config.has_rbac() => Default::default(),
        _ => api.rbac.rules_of(user, namespace),
    };
    if node_of(user).is_some() && config.is_none_or(AuthorizationConfig::has_node) {
        errors.push("node authorizer does not support user rule resolution".into());
    }
    if config.is_some_and(AuthorizationConfig::has_webhook) {
        errors.push("webhook authorizer does not support user rule resolution".into());
    }
    let of = |is_wanted: fn(&PolicyRule) -> bool, show: fn(&PolicyRule) -> Value| {
        rules.iter().filter(|rule| is_wanted(rule)).map(show).collect::<Vec<_>>()
    };
    let is_path =
        |rule: &PolicyRule| rule.non_resource_urls.as_ref().is_some_and(|u| !u.is_empty());
    let is_resource = |rule: &PolicyRule| rule.resources.as_ref().is_some_and(|r| !r.is_empty());
    let mut status = json!({
        "resourceRules": of(is_resource, resource_rule),
        "nonResourceRules": of(is_path, path_rule),
        "incomplete": !errors.is_empty(),
    });
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
    }
    Ok(status)
}

fn resource_rule(rule: &PolicyRule) -> Value {
    let mut shown =
        json!({ "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources });
    if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
        shown["resourceNames"] = json!(names);
    }
    shown
}

fn path_rule(rule: &PolicyRule) -> Value {
    json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls })
}
