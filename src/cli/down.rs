//! `kontiki down`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::up::{report, stop};

/// Flags of `kontiki down`.
#[derive(Debug, Args)]
pub struct Flags {
    /// The data directory of the `kontiki up` to stop.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
}

/// Stops all that `up` started, whether it still lives or not.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    report::begin();
    let found = super::runtime(None)?.block_on(stop::down(&flags.data_dir))?;
    let dir = flags.data_dir.display();
    report::line(&if found { format!("stopped: {dir}") } else { format!("nothing runs in {dir}") });
    Ok(ExitCode::SUCCESS)
}
