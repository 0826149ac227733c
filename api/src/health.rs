//! `/healthz`, `/livez`, `/readyz`, each also with `?verbose` and per check.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use kontiki_storage::kv::{KeyRange, Kv, RangeRequest};

use crate::answer;
use crate::query::Query;
use crate::registry::key;
use crate::server::ReadyCheck;
use crate::state::Api;
use crate::status::Status;

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

/// Answers `/healthz`, `/livez` or `/readyz` (`endpoint`), or one `check` of it.
pub(crate) async fn answer(api: &Api, endpoint: &str, check: &str, query: &Query) -> Response {
    let mut checks = checks(api, endpoint);
    if !check.is_empty() {
        checks.retain(|one| one.name() == check);
        if checks.is_empty() {
            return Status::no_such_path().into_response();
        }
    }
    let excluded = query.all("exclude");
    checks.retain(|one| !excluded.contains(&one.name()));
    let mut lines = String::new();
    let mut is_well = true;
    for check in &checks {
        let outcome = tokio::time::timeout(CHECK_TIMEOUT, check.check())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {CHECK_TIMEOUT:?}")));
        match outcome {
            Ok(()) => lines.extend(["[+]", check.name(), " ok\n"]),
            Err(why) => {
                is_well = false;
                tracing::warn!(endpoint, check = check.name(), why, "not well");
                lines.extend(["[-]", check.name(), " failed: ", &why, "\n"]);
            }
        }
    }
    let text = match (is_well, query.is_true("verbose") && check.is_empty()) {
        (true, false) => "ok".to_owned(),
        (true, true) => format!("{lines}{endpoint} check passed\n"),
        (false, _) => format!("{lines}{endpoint} check failed\n"),
    };
    let code = if is_well { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    answer::bytes(code, TEXT, text.into_bytes())
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
