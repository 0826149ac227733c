//! `/healthz`, `/livez`, `/readyz`, each also with `?verbose` and per check.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use kontiki_storage::kv::{KeyRange, Kv, RangeRequest};

use crate::answer;
use crate::query::Query;
use crate::registry::key;
use crate::server::ReadyCheck;
use crate::state::Api;

/// How long a check may take before it counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

const TEXT: &str = "text/plain; charset=utf-8";

/// Whether requests are answered at all: true by being asked.
struct Ping;

#[async_trait]
impl ReadyCheck for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Whether the store answers a linearizable read, under the name clients know.
struct Store(Arc<dyn Kv>);

#[async_trait]
impl ReadyCheck for Store {
    fn name(&self) -> &'static str {
        "etcd"
    }

    async fn check(&self) -> Result<(), String> {
        let request = RangeRequest {
            keys_only: true,
            limit: 1,
            ..RangeRequest::new(KeyRange::key(format!("{}health", key::ROOT)))
        };
        self.0.range(request).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Ends when the server is told to stop, so that balancers look elsewhere.
struct Running(tokio_util::sync::CancellationToken);

#[async_trait]
impl ReadyCheck for Running {
    fn name(&self) -> &'static str {
        "shutdown"
    }

    async fn check(&self) -> Result<(), String> {
        if self.0.is_cancelled() { Err("the server is stopping".into()) } else { Ok(()) }
    }
}

/// Answers `/healthz`, `/livez` or `/readyz` (`endpoint`), or one `check` of it. Why a check failed is
/// the log's business, unless it alone is asked for.
pub(crate) async fn answer(api: &Api, endpoint: &str, check: &str, query: &Query) -> Response {
    let checks = checks(api, endpoint);
    if !check.is_empty() {
        let Some(one) = checks.iter().find(|one| one.name() == check) else {
            return answer::no_such_page();
        };
        return match outcome(endpoint, &**one).await {
            Ok(()) => text(StatusCode::OK, "ok".to_owned()),
            Err(why) => {
                let why = format!("internal server error: {why}\n");
                text(StatusCode::INTERNAL_SERVER_ERROR, why)
            }
        };
    }
    let mut excluded = query.all("exclude");
    let mut lines = String::new();
    let mut is_well = true;
    for check in &checks {
        let name = check.name();
        if excluded.contains(&name) {
            excluded.retain(|one| *one != name);
            lines.extend(["[+]", name, " excluded: ok\n"]);
        } else if outcome(endpoint, &**check).await.is_ok() {
            lines.extend(["[+]", name, " ok\n"]);
        } else {
            is_well = false;
            lines.extend(["[-]", name, " failed: reason withheld\n"]);
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        let warning = "warn: some health checks cannot be excluded: no matches for ";
        lines.extend([warning, &names, "\n"]);
    }
    match (is_well, query.has("verbose")) {
        (true, false) => text(StatusCode::OK, "ok".to_owned()),
        (true, true) => text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        (false, _) => {
            let lines = format!("{lines}{endpoint} check failed\n");
            text(StatusCode::INTERNAL_SERVER_ERROR, lines)
        }
    }
}

fn text(code: StatusCode, text: String) -> Response {
    const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
    let mut response = answer::bytes(code, TEXT, text.into_bytes());
    response.headers_mut().insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    response
}

/// Whether all is well that an endpoint looks at; the error says what is not.
pub(crate) async fn look(api: &Api, endpoint: &str) -> Result<(), String> {
    for check in checks(api, endpoint) {
        outcome(endpoint, &*check).await?;
    }
    Ok(())
}

async fn outcome(endpoint: &str, check: &dyn ReadyCheck) -> Result<(), String> {
    let outcome = tokio::time::timeout(CHECK_TIMEOUT, check.check())
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {CHECK_TIMEOUT:?}")));
    if let Err(why) = &outcome {
        tracing::warn!(endpoint, check = check.name(), why, "not well");
    }
    outcome
}

/// A server that cannot reach the store lives, but is not ready.
fn checks(api: &Api, endpoint: &str) -> Vec<Arc<dyn ReadyCheck>> {
    let mut checks: Vec<Arc<dyn ReadyCheck>> = vec![Arc::new(Ping)];
    if endpoint != "livez" {
        checks.push(Arc::new(Store(Arc::clone(api.registry.kv()))));
        checks.extend(api.config.ready_checks.iter().cloned());
    }
    if endpoint == "readyz" {
        checks.push(Arc::new(Running(api.stop.clone())));
    }
    checks
}
