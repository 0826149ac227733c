//! What came of each behaviour.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Every behaviour by name.
pub const BEHAVIOURS: &str = include_str!("../behaviours.txt");

/// What came of a case.
#[derive(Debug)]
pub struct Outcome {
    /// The behaviour.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Why it failed.
    pub result: anyhow::Result<()>,
}

impl Outcome {
    /// Says it at once.
    pub fn tell(&self) {
        let seconds = self.took.as_secs_f64();
        match &self.result {
            Ok(()) => eprintln!("PASS {seconds:6.1} s  {}", self.name),
            Err(error) => eprintln!("FAIL {seconds:6.1} s  {}\n      {error:#}", self.name),
        }
    }
}

/// The group of a behaviour: what its first brackets say.
fn group(name: &str) -> &str {
    name.split_once(']').map_or("", |(group, _)| group.trim_start_matches('['))
}

/// A Markdown table: each group with how many passed, failed and were not run.
pub fn summary(outcomes: &[Outcome]) -> String {
    let mut rows: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for name in BEHAVIOURS.lines() {
        let column = match outcomes.iter().find(|outcome| outcome.name == name) {
            Some(Outcome { result: Ok(()), .. }) => 0,
            Some(_) => 1,
            None => 2,
        };
        for row in [group(name), "all"] {
            rows.entry(row).or_default()[column] += 1;
        }
    }
    let mut text = "| behaviours | pass | fail | not run |\n|---|---:|---:|---:|\n".to_owned();
    for (group, [pass, fail, missing]) in rows {
        let _ = writeln!(text, "| {group} | {pass} | {fail} | {missing} |");
    }
    text
}

/// Every behaviour with what came of it.
pub fn listing(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for name in BEHAVIOURS.lines() {
        let word = match outcomes.iter().find(|outcome| outcome.name == name) {
            Some(Outcome { result: Ok(()), .. }) => "pass",
            Some(_) => "fail",
            None => "not run",
        };
        let _ = writeln!(text, "{word:8}{name}");
    }
    text
}
