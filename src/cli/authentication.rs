//! Flags about who is known beside those whom the cluster names itself, by upstream's names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use kontiki_api::authn::{AuthenticationConfig, TokenWebhookConfig};

/// Flags of `kontiki server` about authentication. All servers of a cluster run alike.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names, which upstream gave")]
pub(super) struct AuthenticationFlags {
    /// Issuers whose tokens are good, and who may come without any: an AuthenticationConfiguration of
    /// apiserver.config.k8s.io/v1.
    #[arg(long, env = "KONTIKI_AUTHENTICATION_CONFIG", value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// The kubeconfig of a webhook that is asked about tokens that nobody here knows.
    #[arg(long, env = "KONTIKI_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// The version of the TokenReviews that it is sent.
    #[arg(
        long,
        env = "KONTIKI_AUTHENTICATION_TOKEN_WEBHOOK_VERSION",
        value_name = "VERSION",
        default_value = "v1beta1",
        value_parser = ["v1", "v1beta1"]
    )]
    authentication_token_webhook_version: String,
    /// How many seconds its answers are good.
    #[arg(
        long,
        env = "KONTIKI_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL",
        value_name = "SECONDS",
        default_value_t = 120
    )]
    authentication_token_webhook_cache_ttl: u64,
}

impl AuthenticationFlags {
    /// Reads what they name.
    pub(super) fn validate(
        self,
    ) -> anyhow::Result<(Option<AuthenticationConfig>, Option<TokenWebhookConfig>)> {
        let config = self.authentication_config.map(|path| {
            let text = read("--authentication-config", &path)?;
            AuthenticationConfig::parse(&text)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("--authentication-config {}", path.display()))
        });
        let webhook = self.authentication_token_webhook_config_file.map(|path| {
            let kubeconfig = read("--authentication-token-webhook-config-file", &path)?;
            let cache = Duration::from_secs(self.authentication_token_webhook_cache_ttl);
            let version = self.authentication_token_webhook_version;
            Ok::<_, anyhow::Error>(TokenWebhookConfig { kubeconfig, version, cache })
        });
        Ok((config.transpose()?, webhook.transpose()?))
    }
}

fn read(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))
}
