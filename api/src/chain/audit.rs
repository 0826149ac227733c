//! Writes down who asked what and what came of it, as the audit policy says.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{FutureExt as _, StreamExt as _};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::trace::AuditId;
use crate::answer;
use crate::audit::{Audit, Begun, Level, Outcome, Stage, Trail};
use crate::authn::User;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::state::Api;

/// From which connection a request comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    Extension(query): Extension<Arc<Query>>,
    Extension(user): Extension<Arc<User>>,
    Extension(AuditId(id)): Extension<AuditId>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(audit) = &api.audit else { return next.run(request).await };
    let attributes = info.attributes(&query);
    let decision = audit.policy.decide(&user, &attributes);
    let level = decision.level;
    if level == Level::None {
        return next.run(request).await;
    }
    let trail = Arc::new(Trail::new(decision));
    let client = request.extensions().get::<ClientAddress>().map(|client| client.0);
    let head = (request.uri(), request.headers());
    let begun = Begun::new(&trail, &id, head, client, &user, &attributes);
    if let Some(event) = begun.at(Stage::RequestReceived, None) {
        audit.write(event).await;
    }
    request.extensions_mut().insert(trail);
    let mut open = Open { audit: Arc::clone(audit), begun, is_unfinished: true };
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        // A connection that speaks another protocol from here on has no content to wait for.
        Ok(response) if info.is_long_running() && !is_switched(&response) => {
            open.goes_on(response).await
        }
        Ok(response) => open.ends(response, level).await,
        Err(panic) => {
            open.write(Stage::Panic, Some(failed(500, "InternalError"))).await;
            resume_unwind(panic)
        }
    }
}

/// That somebody was refused before it was known who they are: `attempted` is how they tried to say
/// it. As upstream, such a request has one event, when the answer begins.
pub(super) fn refused(
    api: &Api,
    request: &Request,
    attempted: &[&str],
    code: StatusCode,
) -> Option<Value> {
    let extensions = request.extensions();
    let (info, query) = (extensions.get::<Arc<RequestInfo>>()?, extensions.get::<Arc<Query>>()?);
    let AuditId(id) = extensions.get()?;
    let (user, attributes) = (User::default(), info.attributes(query));
    let decision = api.audit.as_ref()?.policy.decide(&user, &attributes);
    if decision.level == Level::None {
        return None;
    }
    let trail = Arc::new(Trail::new(decision));
    let client = extensions.get::<ClientAddress>().map(|client| client.0);
    let head = (request.uri(), request.headers());
    let begun = Begun::new(&trail, id, head, client, &user, &attributes);
    let message = match attempted {
        [] => "Authentication failed, no credentials provided".to_owned(),
        methods => format!("Authentication failed, attempted: {}", methods.join(", ")),
    };
    let document = json!({ "kind": "Status", "apiVersion": "v1", "message": message });
    let outcome = Outcome { code: code.as_u16(), document: Some(document) };
    begun.at(Stage::ResponseStarted, Some(outcome))
}

fn is_switched(response: &Response) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// A request whose end is not written down yet.
struct Open {
    audit: Arc<Audit>,
    begun: Begun,
    is_unfinished: bool,
}

impl Open {
    async fn write(&mut self, stage: Stage, outcome: Option<Outcome>) {
        self.is_unfinished &= stage == Stage::ResponseStarted;
        if let Some(event) = self.begun.at(stage, outcome) {
            self.audit.write(event).await;
        }
    }

    async fn ends(mut self, response: Response, level: Level) -> Response {
        let code = response.status().as_u16();
        let (response, document) = read(response, level).await;
        self.write(Stage::ResponseComplete, Some(Outcome { code, document })).await;
        response
    }

    /// Ends with the answer's content.
    async fn goes_on(mut self, response: Response) -> Response {
        let code = response.status().as_u16();
        self.write(Stage::ResponseStarted, Some(Outcome { code, document: None })).await;
        let ended = Ended { open: self, code };
        response.map(|body| {
            let stream = body.into_data_stream().map(move |part| {
                let _until_the_end = &ended;
                part
            });
            Body::from_stream(stream)
        })
    }
}

impl Drop for Open {
    /// Nobody waits for the answer any more: it took too long, or the client is gone.
    fn drop(&mut self) {
        if self.is_unfinished
            && let Some(event) =
                self.begun.at(Stage::ResponseComplete, Some(failed(504, "Timeout")))
        {
            self.audit.write_now(event);
        }
    }
}

/// A long answer, which ends when this is dropped.
struct Ended {
    open: Open,
    code: u16,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.open.is_unfinished = false;
        let outcome = Outcome { code: self.code, document: None };
        if let Some(event) = self.open.begun.at(Stage::ResponseComplete, Some(outcome)) {
            self.open.audit.write_now(event);
        }
    }
}

fn failed(code: u16, reason: &str) -> Outcome {
    let document =
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason });
    Outcome { code, document: Some(document) }
}

/// The answer with its document, where events show it: refusals do, everything at the highest level.
async fn read(response: Response, level: Level) -> (Response, Option<Value>) {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|media| {
        media.to_str().is_ok_and(|media| media.starts_with("application/json"))
    });
    let is_refusal = response.status().as_u16() >= 400;
    let is_whole = response.body().size_hint().exact().is_some()
        || response.extensions().get::<answer::Ends>().is_some();
    if !is_json || !is_whole || !(is_refusal || level == Level::RequestResponse) {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    let Ok(content) = body.collect().await else {
        return (Response::from_parts(parts, Body::empty()), None);
    };
    let content = content.to_bytes();
    let document = serde_json::from_slice(&content).ok();
    (Response::from_parts(parts, Body::from(content)), document)
}
