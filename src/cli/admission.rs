//! Flags about what is decided on writes, by upstream's names.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use kontiki_api::admission::AdmissionConfiguration;

/// Flags of `kontiki server` about admission. All servers of a cluster run alike.
#[derive(Debug, Args)]
pub(super) struct AdmissionFlags {
    /// Admission plugins beyond those that always work: AlwaysPullImages, EventRateLimit,
    /// OwnerReferencesPermissionEnforcement, PodNodeSelector.
    #[arg(
        long,
        env = "KONTIKI_ENABLE_ADMISSION_PLUGINS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    enable_admission_plugins: Vec<String>,
    /// What these are told: an AdmissionConfiguration of apiserver.config.k8s.io/v1. EventRateLimit
    /// needs its limits there.
    #[arg(long, env = "KONTIKI_ADMISSION_CONTROL_CONFIG_FILE", value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
}

impl AdmissionFlags {
    /// The plugins, and what they are told.
    pub(super) fn validate(self) -> anyhow::Result<(Vec<String>, AdmissionConfiguration)> {
        let Some(path) = self.admission_control_config_file else {
            return Ok((self.enable_admission_plugins, AdmissionConfiguration::default()));
        };
        let named = || format!("--admission-control-config-file {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(named)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let told = AdmissionConfiguration::parse(&text, folder).map_err(anyhow::Error::msg);
        Ok((self.enable_admission_plugins, told.with_context(named)?))
    }
}
