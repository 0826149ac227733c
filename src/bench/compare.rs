//! `kontiki bench compare`: a real etcd of three members and a Kontiki of three servers, in turn on
//! fresh directories of one disk, under the same client.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::api::Workload;
use super::etcd::{EtcdRequest, name};
use super::load;
use super::report::Measured;
use super::usage::Usage;
use crate::picture::Chart;

pub mod systems;
pub mod trials;

use systems::{Members, System};
use trials::Sizes;

/// What to compare.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    /// Where the fresh directories are made.
    pub folder: PathBuf,
    /// The etcd to compare with.
    pub etcd: PathBuf,
    /// How many clients, one number after the other.
    pub clients: Vec<u64>,
    /// How long each load runs.
    pub duration: Duration,
    /// How often all is done.
    pub rounds: u32,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// The first port.
    pub base_port: u16,
    /// What the servers log.
    pub log: String,
    /// What is tried beside the loads.
    pub sizes: Sizes,
}

/// Both systems under one load: medians over the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// What was done.
    pub workload: String,
    /// By how many clients.
    pub clients: u64,
    /// etcd, requests a second.
    pub etcd_per_second: f64,
    /// Kontiki, requests a second.
    pub kontiki_per_second: f64,
    /// How many times etcd's throughput Kontiki's is.
    pub ratio: f64,
    /// etcd's median in milliseconds.
    pub etcd_p50_ms: f64,
    /// Kontiki's.
    pub kontiki_p50_ms: f64,
    /// etcd's 99th percentile in milliseconds.
    pub etcd_p99_ms: f64,
    /// Kontiki's.
    pub kontiki_p99_ms: f64,
    /// Time on a core that etcd's members together took for one request, in microseconds.
    pub etcd_cpu_us: f64,
    /// The same of Kontiki's servers.
    pub kontiki_cpu_us: f64,
    /// Requests that failed, in both.
    pub errors: u64,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// By load.
    pub loads: Vec<Compared>,
    /// Seconds from the first exec to the first acknowledged write: etcd, the median.
    pub etcd_boot_s: f64,
    /// The same of Kontiki.
    pub kontiki_boot_s: f64,
    /// Resident memory after all loads, of etcd's largest member, in MB: the median.
    pub etcd_resident_mb: f64,
    /// The same of Kontiki's largest server.
    pub kontiki_resident_mb: f64,
    /// What was measured beside the loads.
    pub trials: Vec<trials::Compared>,
}

/// What one system did in one round.
struct Round {
    boot_s: f64,
    loads: Vec<Loaded>,
    resident_mb: f64,
}

/// One load, and what it cost the members together.
struct Loaded {
    measured: Measured,
    /// Microseconds of a core for each request.
    cpu_us: f64,
}

/// Runs all rounds, the systems alternating.
pub async fn run(config: &CompareConfig) -> anyhow::Result<Comparison> {
    let (mut etcd, mut kontiki) = (Vec::new(), Vec::new());
    for round in 1..=config.rounds {
        for (system, rounds) in [(System::Etcd, &mut etcd), (System::Kontiki, &mut kontiki)] {
            eprintln!("round {round} of {}: {}", config.rounds, system.name());
            rounds.push(round_of(system, config).await?);
        }
    }
    let trials = trials::run(config).await?;
    Ok(Comparison { trials, ..compare(&etcd, &kontiki) })
}

fn folder(config: &CompareConfig, of: &str) -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("kontiki-compare-{of}-"))
        .tempdir_in(&config.folder)
        .with_context(|| format!("make a directory in {}", config.folder.display()))
}

async fn round_of(system: System, config: &CompareConfig) -> anyhow::Result<Round> {
    let folder = folder(config, system.name())?;
    let (members, boot_s) = Members::boot(system, config, folder.path()).await?;
    let round = measure(config, &members, boot_s).await;
    members.stop().await?;
    round
}

async fn measure(config: &CompareConfig, members: &Members, boot_s: f64) -> anyhow::Result<Round> {
    let etcd = members.client(config.value_bytes)?;
    let pids = members.pids();
    let mut loads = Vec::new();
    for workload in [Workload::Write, Workload::Get] {
        let Some(name) = name(workload) else { continue };
        for clients in &config.clients {
            let request = |client| EtcdRequest::new(&etcd, workload, client);
            let before = Usage::of(&pids).cpu;
            let measured = load::run(name, *clients, config.duration, request).await;
            let cpu = Usage::of(&pids).cpu.saturating_sub(before);
            let cpu_us = cpu.as_secs_f64() * 1e6 / done(&measured);
            loads.push(Loaded { measured, cpu_us });
        }
    }
    let resident_mb = megabytes(Usage::of(&pids).resident_bytes_max);
    Ok(Round { boot_s, loads, resident_mb })
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests stay far below 2^52")]
fn done(measured: &Measured) -> f64 {
    measured.done.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "memory stays far below 2^52 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn compare(etcd: &[Round], kontiki: &[Round]) -> Comparison {
    let loads = etcd.first().map_or(0, |round| round.loads.len());
    Comparison {
        loads: (0..loads).map(|index| compare_load(etcd, kontiki, index)).collect(),
        etcd_boot_s: median(etcd.iter().map(|round| round.boot_s)),
        kontiki_boot_s: median(kontiki.iter().map(|round| round.boot_s)),
        etcd_resident_mb: median(etcd.iter().map(|round| round.resident_mb)),
        kontiki_resident_mb: median(kontiki.iter().map(|round| round.resident_mb)),
        trials: Vec::new(),
    }
}

fn compare_load(etcd: &[Round], kontiki: &[Round], index: usize) -> Compared {
    let of = |rounds: &[Round], figure: fn(&Loaded) -> f64| {
        median(rounds.iter().map(|round| figure(&round.loads[index])))
    };
    let etcd_per_second = of(etcd, |load| load.measured.per_second);
    let kontiki_per_second = of(kontiki, |load| load.measured.per_second);
    let first = &etcd[0].loads[index].measured;
    Compared {
        workload: first.workload.clone(),
        clients: first.clients,
        etcd_per_second,
        kontiki_per_second,
        ratio: if etcd_per_second > 0.0 { kontiki_per_second / etcd_per_second } else { 0.0 },
        etcd_p50_ms: of(etcd, |load| load.measured.latency_ms.p50),
        kontiki_p50_ms: of(kontiki, |load| load.measured.latency_ms.p50),
        etcd_p99_ms: of(etcd, |load| load.measured.latency_ms.p99),
        kontiki_p99_ms: of(kontiki, |load| load.measured.latency_ms.p99),
        etcd_cpu_us: of(etcd, |load| load.cpu_us),
        kontiki_cpu_us: of(kontiki, |load| load.cpu_us),
        errors: etcd.iter().chain(kontiki).map(|round| round.loads[index].measured.errors).sum(),
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Requests a second against clients, a line for each load of each system.
pub fn chart(comparison: &Comparison) -> Chart {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for load in &comparison.loads {
        let clients = load::ratio(load.clients, 1.0);
        let both = [("etcd", load.etcd_per_second), ("kontiki", load.kontiki_per_second)];
        for (system, per_second) in both {
            let name = format!("{system}: {}", load.workload);
            match lines.iter_mut().find(|(line, _)| *line == name) {
                Some((_, points)) => points.push((clients, per_second)),
                None => lines.push((name, vec![(clients, per_second)])),
            }
        }
    }
    Chart {
        title: "three members, one client program".into(),
        x: "clients".into(),
        y: "requests a second".into(),
        lines,
        marks: Vec::new(),
    }
}

/// The comparison for people.
pub fn table(comparison: &Comparison) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "WORKLOAD",
        "CLIENTS",
        "ETCD/S",
        "KONTIKI/S",
        "RATIO",
        "P50 MS, ETCD",
        "KONTIKI",
        "P99 MS, ETCD",
        "KONTIKI",
        "CPU US, ETCD",
        "KONTIKI",
        "ERRORS",
    ]);
    for load in &comparison.loads {
        table.add_row([
            load.workload.clone(),
            load.clients.to_string(),
            format!("{:.0}", load.etcd_per_second),
            format!("{:.0}", load.kontiki_per_second),
            format!("{:.2}", load.ratio),
            format!("{:.2}", load.etcd_p50_ms),
            format!("{:.2}", load.kontiki_p50_ms),
            format!("{:.1}", load.etcd_p99_ms),
            format!("{:.1}", load.kontiki_p99_ms),
            format!("{:.0}", load.etcd_cpu_us),
            format!("{:.0}", load.kontiki_cpu_us),
            load.errors.to_string(),
        ]);
    }
    format!(
        "{table}\nboot to first acknowledged write: etcd {:.2} s, kontiki {:.2} s\n\
         resident memory of the largest member after all loads: etcd {:.0} MB, kontiki {:.0} MB",
        comparison.etcd_boot_s,
        comparison.kontiki_boot_s,
        comparison.etcd_resident_mb,
        comparison.kontiki_resident_mb
    ) + &trials_table(&comparison.trials)
}

fn trials_table(trials: &[trials::Compared]) -> String {
    if trials.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["TRIAL", "ETCD", "KONTIKI"]);
    for trial in trials {
        let cells = [trial.etcd, trial.kontiki].map(|value| format!("{value:.2}"));
        table.add_row([std::slice::from_ref(&trial.figure), &cells[..]].concat());
    }
    format!("\n\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Latency;

    fn round(per_second: f64) -> Round {
        let measured = Measured {
            workload: "put".into(),
            clients: 64,
            seconds: 1.0,
            done: 1,
            per_second,
            latency_ms: Latency::default(),
            errors: 1,
            first_error: None,
        };
        let loads = vec![Loaded { measured, cpu_us: 1e6 / per_second }];
        Round { boot_s: per_second / 1000.0, loads, resident_mb: 30.0 }
    }

    #[test]
    fn medians_are_compared_and_errors_of_both_are_told() {
        let etcd = [round(1000.0), round(9000.0), round(2000.0)];
        let kontiki = [round(3000.0), round(1.0), round(4000.0)];
        let comparison = compare(&etcd, &kontiki);
        assert!((comparison.loads[0].ratio - 1.5).abs() < 1e-9);
        assert_eq!(comparison.loads[0].errors, 6);
        assert!((comparison.etcd_boot_s - 2.0).abs() < 1e-9);
        let drawn = chart(&comparison).lines;
        assert_eq!(drawn[1], ("kontiki: put".to_owned(), vec![(64.0, 3000.0)]));
        assert!((comparison.loads[0].etcd_cpu_us - 500.0).abs() < 1e-9);
    }
}
