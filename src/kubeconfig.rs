//! kubeconfig files: the one that `up` writes for kubectl, and reading any for our own verbs.

use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::pki::Identity;

/// What a kubeconfig says about its current context.
#[derive(Clone)]
pub struct Kubeconfig {
    /// URL of the API.
    pub server: String,
    /// The authority to trust.
    pub ca_pem: String,
    /// Who one is.
    pub identity: Identity,
}

impl Kubeconfig {
    /// The text of a file for kubectl, with everything inside.
    pub fn render(&self, cluster: &str) -> String {
        let data = |pem: &str| BASE64.encode(pem);
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": cluster, "cluster": {
                "server": self.server,
                "certificate-authority-data": data(&self.ca_pem),
            }}],
            "users": [{ "name": "admin", "user": {
                "client-certificate-data": data(&self.identity.cert_pem),
                "client-key-data": data(&self.identity.key_pem),
            }}],
            "contexts": [{ "name": cluster, "context": { "cluster": cluster, "user": "admin" }}],
            "current-context": cluster,
        });
        // JSON is YAML; a serializer that cannot fail is not needed for a fixed shape.
        serde_yaml_ng::to_string(&file).unwrap_or_else(|_| file.to_string())
    }

    /// Reads a file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read kubeconfig {}", path.display()))?;
        Self::parse(&text, path).with_context(|| format!("kubeconfig {}", path.display()))
    }

    fn parse(text: &str, path: &Path) -> anyhow::Result<Self> {
        let file: Value = serde_yaml_ng::from_str(text)?;
        let context = file["current-context"].as_str().context("has no current-context")?;
        let context = &named(&file, "contexts", context)?["context"];
        let name =
            |key: &str| context[key].as_str().with_context(|| format!("context has no {key}"));
        let cluster = &named(&file, "clusters", name("cluster")?)?["cluster"];
        let user = &named(&file, "users", name("user")?)?["user"];
        let server = cluster["server"].as_str().context("cluster has no server")?;
        Ok(Self {
            server: server.trim_end_matches('/').to_owned(),
            ca_pem: pem(cluster, "certificate-authority", path)?,
            identity: Identity {
                cert_pem: pem(user, "client-certificate", path)?,
                key_pem: pem(user, "client-key", path)?,
            },
        })
    }
}

fn named<'a>(file: &'a Value, list: &str, name: &str) -> anyhow::Result<&'a Value> {
    let entries = file[list].as_array().map(Vec::as_slice).unwrap_or_default();
    entries
        .iter()
        .find(|entry| entry["name"] == name)
        .with_context(|| format!("has no entry {name:?} under {list}"))
}

/// `KEY-data` inline, or the file that `KEY` names, relative to the kubeconfig.
fn pem(entry: &Value, key: &str, kubeconfig: &Path) -> anyhow::Result<String> {
    if let Some(data) = entry[format!("{key}-data")].as_str() {
        let bytes = BASE64.decode(data).with_context(|| format!("{key}-data is not base64"))?;
        return String::from_utf8(bytes).with_context(|| format!("{key}-data is not PEM"));
    }
    let Some(file) = entry[key].as_str() else {
        bail!("has neither {key}-data nor {key}; only client certificates are understood");
    };
    let path = kubeconfig.parent().unwrap_or(Path::new(".")).join(file);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_read_back() {
        let written = Kubeconfig {
            server: "https://127.0.0.1:6443".into(),
            ca_pem: "ca".into(),
            identity: Identity { cert_pem: "cert".into(), key_pem: "key".into() },
        };
        let read = Kubeconfig::parse(&written.render("kontiki"), Path::new("x")).unwrap();
        assert_eq!(read.server, written.server);
        assert_eq!(read.ca_pem, "ca");
        assert_eq!(read.identity.key_pem, "key");
    }

    #[test]
    fn a_dangling_context_is_named() {
        let text = "current-context: gone\ncontexts: []\n";
        let error = Kubeconfig::parse(text, Path::new("x")).err().unwrap();
        assert!(error.to_string().contains("no entry \"gone\" under contexts"), "{error}");
    }
}
