//! [`Target`]: the cluster that is checked, and ways to ask it as this one or that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::client;
use crate::cluster_file::ClusterFile;
use crate::kubeconfig::Kubeconfig;
use crate::pki::tls;

/// How long an answer may take.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// A cluster of `kontiki up`, seen from its own machine.
pub struct Target {
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// What runs.
    pub file: ClusterFile,
    /// An administrator.
    admin: reqwest::Client,
    /// Somebody without a certificate.
    nobody: reqwest::Client,
}

/// An answer: its code, and its document where it has one.
#[derive(Debug)]
pub struct Answer {
    /// The code.
    pub code: StatusCode,
    /// The document; null where it is none.
    pub document: Value,
}

impl Answer {
    /// `403 Forbidden: secrets is forbidden: …`
    pub fn said(&self) -> String {
        match self.document["message"].as_str() {
            Some(message) => format!("{}: {message}", self.code),
            None => self.code.to_string(),
        }
    }
}

impl Target {
    /// The cluster of a data directory.
    pub fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let file = ClusterFile::read(data_dir)?;
        let kubeconfig = Kubeconfig::read(&file.kubeconfig)?;
        let nobody = tls::client_config("the kubeconfig", &kubeconfig.ca_pem, None)?;
        Ok(Self {
            data_dir: data_dir.to_path_buf(),
            admin: client::for_kubeconfig(&kubeconfig)?,
            nobody: client::with_tls(nobody)?,
            file,
        })
    }

    /// GET of a path as an administrator.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(&self.admin, Method::GET, path, &[], None).await
    }

    /// The same without saying who one is, but for a token where given.
    pub async fn get_as_nobody(&self, path: &str, token: Option<&str>) -> anyhow::Result<Answer> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|one| ("Authorization", one.as_str())).collect();
        self.ask(&self.nobody, Method::GET, path, &headers, None).await
    }

    /// A request as another user of some group.
    pub async fn ask_as(
        &self,
        (user, group): (&str, &str),
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let headers = [("Impersonate-User", user), ("Impersonate-Group", group)];
        self.ask(&self.admin, method, path, &headers, body).await
    }

    /// A POST as an administrator.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.ask(&self.admin, Method::POST, path, &[], Some(body)).await
    }

    /// A request without a certificate to any address.
    pub async fn knock(&self, url: &str) -> anyhow::Result<StatusCode> {
        let answer = self.nobody.get(url).timeout(DEADLINE).send().await.map_err(client::why)?;
        Ok(answer.status())
    }

    /// A POST without a certificate to any address, and the document it is answered with.
    pub async fn post_to(&self, url: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.nobody.post(url).body(body.to_string()).timeout(DEADLINE);
        client::json_answer(request.send().await.map_err(client::why)?).await
    }

    async fn ask(
        &self,
        client: &reqwest::Client,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let server = self.file.servers.first().context("the cluster has no server")?;
        let mut request = client.request(method.clone(), format!("{}{path}", server.api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            let media = match method {
                Method::PATCH => "application/merge-patch+json",
                _ => "application/json",
            };
            request = request.header("Content-Type", media).body(body.to_string());
        }
        let answer = request.timeout(DEADLINE).send().await.map_err(client::why);
        let answer = answer.with_context(|| format!("ask {} for {path}", server.name))?;
        let code = answer.status();
        let text = answer.bytes().await.map_err(client::why)?;
        Ok(Answer { code, document: serde_json::from_slice(&text).unwrap_or_default() })
    }
}
