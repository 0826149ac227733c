//! Finds out who calls.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::authn::{Peer, User};
use crate::status::Status;

/// Who calls was told by the connection ([`Peer`]) or, in process, by a [`User`] in the extensions.
/// A certificate that is not good is refused; a token too, for there are none yet, except that the
/// enrolment checks its own.
pub(super) async fn filter(mut request: Request, next: Next) -> Response {
    let user = match request.extensions().get::<Peer>() {
        Some(Peer::Refused(why)) => {
            tracing::info!(%why, "refused a client certificate");
            return Status::unauthorized().into_response();
        }
        Some(Peer::Known(user)) => Arc::clone(user),
        Some(Peer::Anonymous) | None => {
            let known = request.extensions().get::<Arc<User>>().cloned();
            if known.is_none() && has_foreign_token(&request) {
                return Status::unauthorized().into_response();
            }
            known.unwrap_or_else(|| Arc::new(User::anonymous()))
        }
    };
    request.extensions_mut().insert(user);
    next.run(request).await
}

fn has_foreign_token(request: &Request) -> bool {
    request.headers().contains_key(http::header::AUTHORIZATION)
        && !request.uri().path().starts_with("/kontiki/v1/enroll/")
}
