//! `kontiki check`: a running cluster against the control-plane items of the CIS Kubernetes Benchmark.
//!
//! ```text
//!   Target ─┬─▶ files      modes and owners of what is on disk        1.1, 2.7
//!           ├─▶ api        what the API lets whom do, by asking it    1.2
//!           ├─▶ settings   what only the command line says            1.2.9 to 1.2.19, 3.2
//!           └─▶ transport  who gets through to stores and agents      1.2.29, 2, 4.2
//! ```
//!
//! An item is judged by what the cluster does when it is tried, not by a flag, wherever it can be
//! tried; each finding says what was seen. Nothing is changed: what would write is a dry run. Items
//! keep the numbers of version 1.10 of the benchmark.

pub mod api;
pub mod files;
pub mod settings;
pub mod target;
pub mod transport;

use serde::Serialize;

pub use target::Target;

/// What came of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It does not by default, and whether it should is the operator's to say.
    Warn,
    /// It could not be tried here.
    Info,
}

/// An item with what was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Its number.
    pub id: &'static str,
    /// What it asks for.
    pub title: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
}

/// An item of the benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// Its number.
    pub id: &'static str,
    /// What it asks for.
    pub title: &'static str,
}

impl Item {
    /// Passes where `holds`.
    pub fn judge(self, holds: bool, evidence: impl Into<String>) -> Finding {
        self.found(if holds { Verdict::Pass } else { Verdict::Fail }, evidence)
    }

    /// With that verdict.
    pub fn found(self, verdict: Verdict, evidence: impl Into<String>) -> Finding {
        Finding { id: self.id, title: self.title, verdict, evidence: evidence.into() }
    }
}

/// Tries all items, in the order of their numbers.
pub async fn run(target: &Target) -> anyhow::Result<Vec<Finding>> {
    let mut findings = files::check(target)?;
    findings.extend(settings::check(target));
    findings.extend(api::check(target).await?);
    findings.extend(transport::check(target).await?);
    findings.sort_by_key(|finding| order(finding.id));
    Ok(findings)
}

/// 1.2.9 comes before 1.2.10.
fn order(id: &str) -> Vec<u32> {
    id.split('.').map(|part| part.parse().unwrap_or(u32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_as_numbers() {
        let mut ids = ["1.2.10", "2.1", "1.2.9", "1.1.11"];
        ids.sort_by_key(|id| order(id));
        assert_eq!(ids, ["1.1.11", "1.2.9", "1.2.10", "2.1"]);
    }
}
