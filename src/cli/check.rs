//! `kontiki check`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::json;

use super::Output;
use crate::check::{self, Finding, Target, Verdict};

/// Flags of `kontiki check`.
#[derive(Debug, Args)]
pub struct Flags {
    /// The data directory of `kontiki up`.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// How to print it.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Tries each item and prints what was seen. Fails where one does not hold.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let target = Target::open(&flags.data_dir)?;
    let findings = super::runtime(Some(1))?.block_on(check::run(&target))?;
    match flags.output {
        Output::Json => {
            super::print(&serde_json::to_string_pretty(&json!({ "findings": findings }))?)?;
        }
        Output::Table => super::print(&table(&findings))?,
    }
    let holds = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["ITEM", "VERDICT", "ASKS FOR", "EVIDENCE"]);
    for finding in findings {
        let verdict = format!("{:?}", finding.verdict).to_uppercase();
        table.add_row([finding.id, &verdict, finding.title, &finding.evidence]);
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    format!(
        "{table}\n{} pass, {} fail, {} warn, {} not tried",
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::Warn),
        count(Verdict::Info)
    )
}
