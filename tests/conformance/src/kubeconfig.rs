//! The little of a kubeconfig that is needed: where, whom to trust, and who one is.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// A way to a cluster.
#[derive(Debug, Clone)]
pub struct Kubeconfig {
    /// URL of the API.
    pub server: String,
    /// The authority to trust, in PEM.
    pub ca_pem: String,
    /// Certificate and key of a client, in PEM.
    pub identity_pem: String,
}

impl Kubeconfig {
    /// Reads the first cluster and the first user of a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read kubeconfig {}", path.display()))?;
        let file: Value = serde_yaml_ng::from_str(&text)?;
        let data = |value: &Value, what: &str| -> Result<String> {
            let text =
                value.as_str().with_context(|| format!("{} has no {what}", path.display()))?;
            Ok(String::from_utf8(BASE64.decode(text)?)?)
        };
        let cluster = &file["clusters"][0]["cluster"];
        let user = &file["users"][0]["user"];
        let certificate = data(&user["client-certificate-data"], "client-certificate-data")?;
        let key = data(&user["client-key-data"], "client-key-data")?;
        Ok(Self {
            server: cluster["server"].as_str().context("no server")?.to_owned(),
            ca_pem: data(&cluster["certificate-authority-data"], "certificate-authority-data")?,
            identity_pem: format!("{certificate}\n{key}"),
        })
    }
}
