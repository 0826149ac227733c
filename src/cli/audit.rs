//! Flags about the audit log, by upstream's names.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use kontiki_api::audit::{AuditConfig, AuditLog, Policy};

/// Flags of `kontiki server` about its audit log.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names, which upstream gave")]
pub(super) struct AuditFlags {
    /// Which requests are written down, and how much of each: a Policy of audit.k8s.io/v1.
    #[arg(long, env = "KONTIKI_AUDIT_POLICY_FILE", value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// The file to which events are written; `-` is standard output.
    #[arg(long, env = "KONTIKI_AUDIT_LOG_PATH", value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// How many days files that were full are kept; 0 keeps them.
    #[arg(
        long,
        env = "KONTIKI_AUDIT_LOG_MAXAGE",
        value_name = "DAYS",
        default_value_t = 0,
        requires = "audit_log_path"
    )]
    audit_log_maxage: u32,
    /// How many of them are kept; 0 keeps all.
    #[arg(
        long,
        env = "KONTIKI_AUDIT_LOG_MAXBACKUP",
        value_name = "COUNT",
        default_value_t = 0,
        requires = "audit_log_path"
    )]
    audit_log_maxbackup: usize,
    /// When a file is full, in megabytes; 0 is 100.
    #[arg(
        long,
        env = "KONTIKI_AUDIT_LOG_MAXSIZE",
        value_name = "MEGABYTES",
        default_value_t = 0,
        requires = "audit_log_path"
    )]
    audit_log_maxsize: u64,
    /// The kubeconfig of a webhook to which events are sent.
    #[arg(long, env = "KONTIKI_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
}

impl AuditFlags {
    /// Reads what they name.
    pub(super) fn validate(self) -> anyhow::Result<Option<AuditConfig>> {
        let goes_somewhere =
            self.audit_log_path.is_some() || self.audit_webhook_config_file.is_some();
        let Some(path) = self.audit_policy_file else {
            if goes_somewhere {
                bail!("an audit log needs --audit-policy-file, which says what is written down");
            }
            return Ok(None);
        };
        if !goes_somewhere {
            bail!("--audit-policy-file needs --audit-log-path or --audit-webhook-config-file");
        }
        let text = read("--audit-policy-file", &path)?;
        let policy = Policy::parse(&text)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("--audit-policy-file {}", path.display()))?;
        let log = self.audit_log_path.map(|path| AuditLog {
            path,
            max_age_days: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            max_megabytes: self.audit_log_maxsize,
        });
        let webhook = self.audit_webhook_config_file;
        let webhook = webhook.map(|path| read("--audit-webhook-config-file", &path)).transpose()?;
        Ok(Some(AuditConfig { policy, log, webhook }))
    }
}

fn read(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))
}
