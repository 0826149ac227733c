//! `kontiki version`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Output;

/// The Kubernetes version whose API is served.
pub const KUBERNETES_VERSION: &str = "v1.35";

/// Flags of `kontiki version`.
#[derive(Debug, Args)]
pub struct Flags {
    /// How to print it.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Prints the version.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    match flags.output {
        Output::Table => {
            super::print(&format!("kontiki {version} (Kubernetes API {KUBERNETES_VERSION})"))?;
        }
        Output::Json => {
            super::print(&json!({ "version": version, "kubernetes": KUBERNETES_VERSION }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
