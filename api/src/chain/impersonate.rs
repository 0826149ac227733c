//! Lets who may act as somebody else: `kubectl --as`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;

use crate::audit::Trail;
use crate::authn::{ANONYMOUS, AUTHENTICATED, SERVICE_ACCOUNT_PREFIX, UNAUTHENTICATED, User};
use crate::authz::{Attributes, ResourceAttributes, decide, refusal};
use crate::request_info;
use crate::state::Api;
use crate::status::Status;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// The group of the reviews, to which uids and extras belong.
const AUTHENTICATION: &str = "authentication.k8s.io";

pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    Extension(user): Extension<Arc<User>>,
    mut request: Request,
    next: Next,
) -> Response {
    let wanted = match wanted(request.headers()) {
        Ok(None) => return next.run(request).await,
        Ok(Some(wanted)) => wanted,
        Err(refusal) => return refusal.into_response(),
    };
    for attributes in needed(&wanted) {
        if let Err(why) = decide(&*api.authorizer, &user, &attributes).await {
            return refusal(&user, &attributes, &why).into_response();
        }
    }
    let headers = request.headers_mut();
    let names: Vec<_> = headers.keys().filter(|name| is_ours(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    tracing::info!(user = user.name, acting_as = wanted.name, "impersonation");
    let user = Arc::new(completed(wanted));
    if let Some(trail) = request.extensions().get::<Arc<Trail>>() {
        trail.acts_as(&user);
    }
    request.extensions_mut().insert(user);
    next.run(request).await
}

fn is_ours(header: &str) -> bool {
    [USER, GROUP, UID].contains(&header) || header.starts_with(EXTRA)
}

/// Whom the headers name.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.map(str::to_owned).collect()
    };
    let first = |name: &str| all(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = request_info::decoded(key).to_ascii_lowercase();
            extra.entry(key).or_default().extend(all(name.as_str()));
        }
    }
    let (name, uid, groups) = (first(USER), first(UID), all(GROUP));
    let user = User { name, uid, groups, extra, ..User::default() };
    if user == User::default() {
        return Ok(None);
    }
    if user.name.is_empty() {
        return Err(Status::internal(
            "requested groups, uid or extra without impersonating a user",
        ));
    }
    Ok(Some(user))
}

/// What one must be allowed to be somebody.
fn needed(user: &User) -> Vec<Attributes> {
    let asked = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        Attributes::Resource(ResourceAttributes {
            verb: "impersonate".into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..ResourceAttributes::default()
        })
    };
    let mut needed = vec![match service_account(&user.name) {
        Some((namespace, name)) => asked("", "serviceaccounts", "", namespace, name),
        None => asked("", "users", "", "", &user.name),
    }];
    needed.extend(user.groups.iter().map(|group| asked("", "groups", "", "", group)));
    if !user.uid.is_empty() {
        needed.push(asked(AUTHENTICATION, "uids", "", "", &user.uid));
    }
    for (key, values) in &user.extra {
        let of_key = values.iter().map(|value| asked(AUTHENTICATION, "userextras", key, "", value));
        needed.extend(of_key);
    }
    needed
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')
}

/// With the groups that follow from the name.
fn completed(mut user: User) -> User {
    if let Some((namespace, name)) = service_account(&user.name)
        && user.groups.is_empty()
    {
        user.groups = User::service_account(namespace, name).groups;
    }
    let group = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(group.into());
    }
    user
}
