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
    let user = match user(&api, request.extensions(), token).await {
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
    if !is_enrolment(&request) {
        request.headers_mut().remove(AUTHORIZATION);
    }
    next.run(request).await
}

async fn user(
    api: &Api,
    extensions: &Extensions,
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
        (None, None) => Ok(Arc::new(User::anonymous())),
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

async fn by_token(api: &Api, token: &str) -> Result<User, Status> {
    let client = Client::new(Arc::clone(&api.registry), Arc::clone(&api.authorizer));
    bearer::authenticate(&api.tokens, &client, token).await
}

/// The bearer token, where there is one.
fn token(request: &Request) -> Option<String> {
    if is_enrolment(request) {
        return None;
    }
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn is_enrolment(request: &Request) -> bool {
    request.uri().path().starts_with("/kontiki/v1/enroll/")
}
