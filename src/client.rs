//! The HTTP client of our own verbs: one that trusts a cluster and is somebody there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cluster_file::ClusterFile;
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

/// The servers to call: the one that the kubeconfig names where one was named, else all that `up`
/// runs.
pub fn servers(
    named: Option<&Path>,
    kubeconfig: &Kubeconfig,
    data_dir: &Path,
) -> anyhow::Result<Vec<String>> {
    if named.is_some() {
        return Ok(vec![kubeconfig.server.clone()]);
    }
    let servers = ClusterFile::read(data_dir)?.servers;
    Ok(servers.into_iter().map(|server| server.api).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_file::tests::example;
    use crate::pki::Identity;
    use crate::process::ProcessId;

    #[test]
    fn a_named_kubeconfig_leads_to_its_server_and_a_data_directory_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cert_pem: String::new(), key_pem: String::new() };
        let server = "https://192.0.2.1:6443".to_owned();
        let kubeconfig = Kubeconfig { server: server.clone(), ca_pem: String::new(), identity };
        let named = servers(Some(Path::new("file")), &kubeconfig, dir.path()).unwrap();
        assert_eq!(named, [server]);
        let error = servers(None, &kubeconfig, dir.path()).unwrap_err().to_string();
        assert!(error.contains("start one with `kontiki up`"), "{error}");
        example(ProcessId { pid: 7, started_ticks: 11 }).write(dir.path()).unwrap();
        let listed = servers(None, &kubeconfig, dir.path()).unwrap();
        assert_eq!(listed, ["https://127.0.0.1:6444"]);
    }
}
