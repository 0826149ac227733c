//! The HTTP client of our own verbs: one that trusts a cluster and is somebody there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::kubeconfig::Kubeconfig;
use crate::pki::tls;

/// How long opening a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Between two looks at whether an HTTP/2 connection still lives, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A client over HTTP/1.1 and HTTP/2, with the identity of a kubeconfig. It has no deadline of its
/// own for a whole request, since watches have none: every other call must set one.
pub fn for_kubeconfig(kubeconfig: &Kubeconfig) -> anyhow::Result<reqwest::Client> {
    let tls = tls::client_config("the kubeconfig", &kubeconfig.ca_pem, Some(&kubeconfig.identity))?;
    with_tls(tls)
}

/// A client with this TLS configuration.
pub fn with_tls(tls: rustls::ClientConfig) -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE)
        .build()
        .context("make an HTTP client")
}

/// The kubeconfig that was named, or the one that `up` wrote into its data directory.
pub fn kubeconfig(named: Option<&Path>, data_dir: &Path) -> anyhow::Result<Kubeconfig> {
    match named {
        Some(path) => Kubeconfig::read(path),
        None => Kubeconfig::read(&data_dir.join("kubeconfig")).context(
            "no cluster here: start one with `kontiki up`, or name --data-dir or --kubeconfig",
        ),
    }
}

/// `GET url` as JSON, within `deadline`. What is refused comes as an error with the Status message.
pub async fn get_json(
    client: &reqwest::Client,
    url: &str,
    deadline: Duration,
) -> anyhow::Result<Value> {
    let answer = client.get(url).timeout(deadline).send().await.map_err(why)?;
    json_answer(answer).await
}

/// The body of a success, or the message of a refusal.
pub async fn json_answer(answer: reqwest::Response) -> anyhow::Result<Value> {
    let status = answer.status();
    let body = answer.bytes().await.map_err(why)?;
    if status.is_success() {
        return serde_json::from_slice(&body).context("the answer is not JSON");
    }
    let told: Option<Value> = serde_json::from_slice(&body).ok();
    match told.as_ref().and_then(|status| status["message"].as_str()) {
        Some(message) => bail!("{message} ({status})"),
        None => bail!("{status}"),
    }
}

/// reqwest hides the cause (refused, timed out, certificate) behind "error sending request".
pub fn why(error: reqwest::Error) -> anyhow::Error {
    let error = error.without_url();
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    if error.is_timeout() {
        return anyhow::anyhow!("no answer in time");
    }
    anyhow::anyhow!("{deepest}")
}
