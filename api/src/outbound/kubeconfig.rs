//! [`Kubeconfig`]: where a webhook of the server's own configuration is, and how it is called.

use std::path::Path;

use base64::Engine as _;
use reqwest::{Client, Url};
use serde_json::Value;

use super::connection::{self, Credentials, Trust};

/// What the current context of a kubeconfig says.
#[derive(Clone)]
pub(crate) struct Kubeconfig {
    pub(crate) url: Url,
    pub(crate) token: Option<String>,
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
        Ok(Self { url, token, trust, own })
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
