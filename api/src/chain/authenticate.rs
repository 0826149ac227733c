//! Finds out who calls.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Extensions;
use http::header::AUTHORIZATION;

use super::audit;
use crate::authn::{Peer, User, bearer};
use crate::client::Client;
use crate::state::Api;
use crate::status::Status;

/// Who calls was told by the connection ([`Peer`]), by a bearer token, or, in process, by a
/// [`User`] in the extensions. A certificate or a token that is not good is refused, except that
/// the enrolment checks its own.
pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = token(&request);
    let path = request.uri().path();
    let user = match user(&api, request.extensions(), path, token).await {
        Ok(user) => user,
        Err(refusal) => {
            let refusal = refusal.into_response();
            let event = audit::refused(&api, &request, &attempted(&request), refusal.status());
            if let (Some(audit), Some(event)) = (&api.audit, event) {
                audit.write(event).await;
            }
            return refusal;
        }
    };
    request.extensions_mut().insert(user);
    // Nobody behind this may see it, or hand it on.
    if !is_enrolment(request.uri().path()) {
        request.headers_mut().remove(AUTHORIZATION);
    }
    next.run(request).await
}

async fn user(
    api: &Api,
    extensions: &Extensions,
    path: &str,
    token: Option<String>,
) -> Result<Arc<User>, Status> {
    match extensions.get::<Peer>() {
        Some(Peer::Refused(why)) => {
            tracing::info!(%why, "refused a client certificate");
            return Err(Status::unauthorized());
        }
        Some(Peer::Known(user)) => return Ok(Arc::clone(user)),
        Some(Peer::Anonymous) | None => {}
    }
    match (extensions.get::<Arc<User>>(), token) {
        (Some(known), _) => Ok(Arc::clone(known)),
        (None, None) if is_welcome(api, path) => Ok(Arc::new(User::anonymous())),
        (None, None) => Err(Status::unauthorized()),
        (None, Some(token)) => by_token(api, &token).await.map(Arc::new),
    }
}

/// By which means somebody tried to say who they are, as upstream's audit log names them.
fn attempted(request: &Request) -> Vec<&'static str> {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scheme = header.and_then(|header| header.trim().split_once(' ')).map(|(scheme, _)| scheme);
    let is = |name: &str| scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(name));
    let peer = request.extensions().get::<Peer>();
    let has_certificate = matches!(peer, Some(Peer::Known(_) | Peer::Refused(_)));
    let all = [("basic", is("basic")), ("bearer", is("bearer")), ("x509", has_certificate)];
    all.into_iter().filter(|(_, is_tried)| *is_tried).map(|(name, _)| name).collect()
}

/// Whether somebody may come without proof.
fn is_welcome(api: &Api, path: &str) -> bool {
    let anonymous = api.config.authentication.as_ref().and_then(|all| all.anonymous.as_ref());
    anonymous.is_none_or(|anonymous| anonymous.may(path)) || is_enrolment(path)
}

/// First one of the issuers who says that it is its own, then this cluster, then who is asked outside.
async fn by_token(api: &Api, token: &str) -> Result<User, Status> {
    if let Some(issuers) = &api.issuers
        && let Some(found) = issuers.authenticate(token).await
    {
        return found.map_err(refused);
    }
    let client = Client::new(Arc::clone(&api.registry), Arc::clone(&api.authorizer));
    let own = bearer::authenticate(&api.tokens, &client, token).await;
    match (&own, &api.token_webhook) {
        (Err(refusal), Some(webhook)) if refusal.code() == 401 => {
            let found = webhook.authenticate(token, &api.tokens.audiences()).await;
            found.map_err(refused)?.ok_or_else(Status::unauthorized)
        }
        _ => own,
    }
}

fn refused(why: String) -> Status {
    tracing::info!(why, "refused a bearer token");
    Status::unauthorized()
}

/// The bearer token, where there is one.
fn token(request: &Request) -> Option<String> {
    if is_enrolment(request.uri().path()) {
        return None;
    }
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn is_enrolment(path: &str) -> bool {
    path.starts_with("/kontiki/v1/enroll/")
}
