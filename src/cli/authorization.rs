//! Flags about who may do what, by upstream's names.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kontiki_api::authz::AuthorizationConfig;

/// Flags of `kontiki server` about authorization. All servers of a cluster run alike.
#[derive(Debug, Args)]
pub(super) struct AuthorizationFlags {
    /// Who is asked who may do what, in which order: an AuthorizationConfiguration of
    /// apiserver.config.k8s.io/v1 with the types Node, RBAC and Webhook, read again when it changes.
    /// By default Node and RBAC.
    #[arg(long, env = "KONTIKI_AUTHORIZATION_CONFIG", value_name = "FILE")]
    authorization_config: Option<PathBuf>,
}

impl AuthorizationFlags {
    /// Reads what they name.
    pub(super) fn validate(self) -> anyhow::Result<Option<AuthorizationConfig>> {
        let Some(path) = self.authorization_config else { return Ok(None) };
        let config = AuthorizationConfig::read(&path).map_err(anyhow::Error::msg);
        config.map(Some).with_context(|| format!("--authorization-config {}", path.display()))
    }
}
