//! `simulate`: runs the simulation for as long as it is told, and says what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use kontiki_simulation::{Summary, run};
use parking_lot::Mutex;

/// How often it is said how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// Runs a simulated cluster with faults, seed after seed, until something is found or time is up.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// For how many simulated hours.
    #[arg(long, default_value_t = 1.0, conflicts_with = "seed")]
    hours: f64,
    /// Run this seed alone: what it does is the same every time.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds run at the same time; as many as there are processors unless told.
    #[arg(long)]
    jobs: Option<usize>,
    /// What to print of what members say, as in `RUST_LOG`.
    #[arg(long)]
    log: Option<String>,
}

/// What all the runs came to.
#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    operations: u64,
    unknown: u64,
    simulated: Duration,
    /// Seeds in which an invariant did not hold.
    broken: Vec<u64>,
}

impl Total {
    fn add(&mut self, summary: &Summary) {
        self.seeds += 1;
        self.operations += summary.operations as u64;
        self.unknown += summary.unknown as u64;
        self.simulated += summary.simulated;
    }

    fn hours(&self) -> f64 {
        self.simulated.as_secs_f64() / 3600.0
    }

    fn line(&self) -> String {
        format!(
            "{:.2} simulated hours, {} seeds, {} operations checked ({} of unknown outcome)",
            self.hours(),
            self.seeds,
            self.operations,
            self.unknown
        )
    }
}

/// Runs one seed; `None` where an invariant did not hold, which has been printed then.
fn attempt(seed: u64) -> Option<Summary> {
    let ran = catch_unwind(AssertUnwindSafe(|| run(seed, None)));
    if ran.is_err() {
        eprintln!("to repeat: cargo run -p kontiki-simulation -- --seed {seed}");
    }
    ran.ok()
}

/// Runs fresh seeds until there are enough `hours`, or one is broken.
fn run_fresh(hours: f64, jobs: usize) -> Total {
    let next = AtomicU64::new(rand::random_range(1 << 20..u64::MAX >> 1));
    let total = Mutex::new(Total::default());
    let reported = Mutex::new(Instant::now());
    let work = || {
        while total.lock().broken.is_empty() && total.lock().hours() < hours {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let ran = attempt(seed);
            let mut total = total.lock();
            match ran {
                Some(summary) => total.add(&summary),
                None => total.broken.push(seed),
            }
            let mut reported = reported.lock();
            if reported.elapsed() > REPORT_EVERY {
                *reported = Instant::now();
                eprintln!("{}", total.line());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    total.into_inner()
}

fn run_one(seed: u64) -> Total {
    let mut total = Total::default();
    match attempt(seed) {
        Some(summary) => {
            println!("{summary:?}");
            total.add(&summary);
        }
        None => total.broken.push(seed),
    }
    total
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(filter) = &arguments.log {
        let lines = tracing_subscriber::fmt().with_env_filter(filter);
        lines.with_ansi(false).with_writer(std::io::stderr).init();
    }
    let began = Instant::now();
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let total = match arguments.seed {
        Some(seed) => run_one(seed),
        None => run_fresh(arguments.hours, arguments.jobs.unwrap_or_else(processors)),
    };
    println!("{}, in {:.0} s", total.line(), began.elapsed().as_secs_f64());
    if total.broken.is_empty() {
        println!("no invariant was broken");
        return ExitCode::SUCCESS;
    }
    println!("broken by seeds {:?}; each is repeated by --seed", total.broken);
    ExitCode::FAILURE
}
