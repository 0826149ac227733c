//! [`Kubeconfig`]: where a webhook of the server's own configuration is, and how it is called.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use reqwest::{Client, Url};
use serde_json::Value;

use super::connection::{self, Credentials, Trust};

/// Where pods find their token and the authority of their cluster.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the current context of a kubeconfig says.
#[derive(Clone)]
pub(crate) struct Kubeconfig {
    pub(crate) url: Url,
    pub(crate) token: Option<String>,
    /// Where the token stands, and is renewed by somebody else.
    pub(crate) token_file: Option<PathBuf>,
    trust: Trust,
    own: Option<Credentials>,
}

impl Kubeconfig {
    /// Reads one; files that it names are read as well. The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let config: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        let current = config["current-context"].as_str().unwrap_or_default();
        let context = named(&config, "contexts", current, "context")?;
        let of = |field: &str| context[field].as_str().unwrap_or_default();
        let cluster = named(&config, "clusters", of("cluster"), "cluster")?;
        let user = match of("user") {
            "" => Value::Null,
            name => named(&config, "users", name, "user")?,
        };
        let server = cluster["server"].as_str().unwrap_or_default();
        let url = Url::parse(server).map_err(|error| format!("server {server:?}: {error}"))?;
        let trust = if cluster["insecure-skip-tls-verify"] == true {
            Trust::Anybody
        } else {
            let pem = content(&cluster, "certificate-authority")?;
            Trust::Authorities(pem.unwrap_or_default().into_bytes())
        };
        let cert = content(&user, "client-certificate")?;
        let own = match (cert, content(&user, "client-key")?) {
            (Some(cert_pem), Some(key_pem)) => Some(Credentials { cert_pem, key_pem }),
            (None, None) => None,
            _ => return Err("client-certificate and client-key belong together".to_owned()),
        };
        let token = match user["tokenFile"].as_str() {
            Some(path) => Some(read(path)?.trim().to_owned()),
            None => user["token"].as_str().map(str::to_owned),
        };
        let token_file = user["tokenFile"].as_str().map(PathBuf::from);
        Ok(Self { url, token, token_file, trust, own })
    }

    /// How a pod calls `path` of its cluster's API server, where this process runs in one. The error
    /// says what is missing.
    pub(crate) fn in_cluster(path: &str) -> Result<Self, String> {
        let told = |name: &str| {
            std::env::var(name).map_err(|_| format!("{name} is not set: this is not a pod"))
        };
        let host = told("KUBERNETES_SERVICE_HOST")?;
        let address = format!("{host}:{}", told("KUBERNETES_SERVICE_PORT")?);
        Self::of_pod(&address, path, Path::new(SERVICE_ACCOUNT))
    }

    fn of_pod(address: &str, path: &str, folder: &Path) -> Result<Self, String> {
        let server = format!("https://{address}{path}");
        let url = Url::parse(&server).map_err(|error| format!("server {server:?}: {error}"))?;
        let file = |name: &str| folder.join(name).display().to_string();
        let token = Some(read(&file("token"))?.trim().to_owned());
        let trust = Trust::Authorities(read(&file("ca.crt"))?.into_bytes());
        Ok(Self { url, token, token_file: Some(folder.join("token")), trust, own: None })
    }

    /// The token as it is now.
    pub(crate) async fn current_token(&self) -> Option<String> {
        let Some(path) = &self.token_file else { return self.token.clone() };
        match tokio::fs::read_to_string(path).await {
            Ok(token) => Some(token.trim().to_owned()),
            Err(_) => self.token.clone(),
        }
    }

    /// Who makes its calls.
    pub(crate) fn client(&self) -> Result<Client, String> {
        connection::make(&self.trust, self.own.as_ref(), None)
    }
}

fn named(config: &Value, list: &str, name: &str, field: &str) -> Result<Value, String> {
    let mut all = config[list].as_array().into_iter().flatten();
    let found = all.find(|one| one["name"] == name);
    let found = found.and_then(|one| one.get(field)).cloned();
    found.ok_or_else(|| format!("{list} has no {name:?}"))
}

/// What stands under `FIELD-data` in base64, or in the file that `FIELD` names.
fn content(value: &Value, field: &str) -> Result<Option<String>, String> {
    let data = value.get(format!("{field}-data")).and_then(Value::as_str);
    if let Some(data) = data {
        let engine = base64::engine::general_purpose::STANDARD;
        let bytes = engine.decode(data).map_err(|error| format!("{field}-data: {error}"))?;
        return String::from_utf8(bytes).map(Some).map_err(|_| format!("{field}-data: no PEM"));
    }
    value.get(field).and_then(Value::as_str).map(read).transpose()
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(Path::new(path)).map_err(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: 'https://example.com/x', insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: t}}]
";

    #[test]
    fn the_current_context_says_where_and_how() {
        let config = Kubeconfig::parse(TEXT).ok().unwrap();
        assert_eq!(
            (config.url.as_str(), config.token.as_deref()),
            ("https://example.com/x", Some("t"))
        );
        assert!(config.trust == Trust::Anybody && config.client().is_ok());
    }

    #[tokio::test]
    async fn a_pod_shows_its_token_as_it_is_now() {
        let folder = tempfile::tempdir().unwrap();
        let of_pod = || Kubeconfig::of_pod("[fd00::1]:443", "/apis/x", folder.path());
        assert!(of_pod().err().unwrap().contains("token: No such file"));
        std::fs::write(folder.path().join("token"), "one\n").unwrap();
        std::fs::write(folder.path().join("ca.crt"), "").unwrap();
        let config = of_pod().ok().unwrap();
        assert_eq!(config.url.as_str(), "https://[fd00::1]/apis/x");
        std::fs::write(folder.path().join("token"), "two\n").unwrap();
        assert_eq!(config.current_token().await.as_deref(), Some("two"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let refused = |text: &str| Kubeconfig::parse(text).err().unwrap();
        assert_eq!(refused(&TEXT.replace("current-context: c", "")), "contexts has no \"\"");
        assert_eq!(
            refused(&TEXT.replace("token: t", "client-key: /no/file")),
            "/no/file: No such file or directory (os error 2)"
        );
        assert!(refused(&TEXT.replace("https://example.com/x", "x")).starts_with("server \"x\""));
    }
}
