//! Log lines, on standard error: `kontiki up` sends each child's into a file.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::cli::{Global, LogFormat};

/// Starts logging for this process.
pub fn start(global: &Global) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&global.log).with_context(|| {
        format!(
            "--log {}: expected a level (error, warn, info, debug, trace, off) or directives such \
             as `info,kontiki_raft=debug`",
            global.log
        )
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match global.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
