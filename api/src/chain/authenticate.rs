//! Finds out who calls.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;

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
    let user = match request.extensions().get::<Peer>() {
        Some(Peer::Refused(why)) => {
            tracing::info!(%why, "refused a client certificate");
            return Status::unauthorized().into_response();
        }
        Some(Peer::Known(user)) => Arc::clone(user),
        Some(Peer::Anonymous) | None => {
            let known = request.extensions().get::<Arc<User>>().cloned();
            match (known, token(&request)) {
                (Some(known), _) => known,
                (None, None) => Arc::new(User::anonymous()),
                (None, Some(token)) => match by_token(&api, &token).await {
                    Ok(user) => Arc::new(user),
                    Err(refusal) => return refusal.into_response(),
                },
            }
        }
    };
    request.extensions_mut().insert(user);
    // Nobody behind this may see it, or hand it on.
    if !is_enrolment(&request) {
        request.headers_mut().remove(AUTHORIZATION);
    }
    next.run(request).await
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
