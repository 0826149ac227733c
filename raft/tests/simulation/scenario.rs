//! Clients, and everything that can go wrong, for a while; then calm, and the judgement.

use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::kv::Revision;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::history::History;
use super::seeded::Bug;
use super::world::{World, virtual_time};
use super::{faults, invariants, observer};

/// The seeds that are always run.
const SEEDS: u64 = 8;

/// For how many simulated seconds fresh seeds are run.
const FRESH: f64 = 120.0;

/// How many things go wrong in one run.
const FAULTS: usize = 10;

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    operations: usize,
    unknown: usize,
    revision: Revision,
    simulated: Duration,
    /// A checksum of the messages: another run of the seed that has it as well went the same way.
    trace: u64,
}

/// Waits, in virtual time, for all members to stand at the same state (R6).
async fn converge(world: &World) -> Revision {
    for _ in 0..6000 {
        let hashes: Vec<_> = world.all().iter().map(|one| one.node.store().hash()).collect();
        let applied: Vec<_> =
            world.all().iter().map(|one| one.node.status().applied_index).collect();
        let equal = hashes.iter().all(|hash| *hash == hashes[0]);
        if equal && applied.iter().all(|index| *index == applied[0]) {
            return hashes[0].0;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let all: Vec<_> = world.all().iter().map(|one| one.node.status()).collect();
    panic!("R6: the members did not become equal: {all:#?}");
}

/// What is there to be seen where nothing goes on after the faults have ended.
fn standstill(world: &World, clients: &Clients, written: usize) -> String {
    let statuses: Vec<_> = world.all().iter().map(|one| one.node.status()).collect();
    let waits = clients.history.waits.lock();
    let now = clients.history.now();
    format!("{written} writes in the calm; at {now} µs clients wait: {waits:#?}, {statuses:?}")
}

/// What a task came to; its panic goes on here.
fn broken<T>(task: Result<T, tokio::task::JoinError>) -> T {
    task.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// One run. All that it does follows from `seed`.
pub(super) async fn simulate(seed: u64, bug: Option<Bug>) -> Summary {
    let begun = tokio::time::Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let members = if seed % 4 == 3 { 5 } else { 3 };
    let world = World::of(seed, members, bug).await;
    let clients = Clients {
        world: Arc::clone(&world),
        history: Arc::new(History::new()),
        stop: CancellationToken::new(),
        stop_watching: CancellationToken::new(),
    };
    let observing = CancellationToken::new();
    let observer = tokio::spawn(observer::run(Arc::clone(&world), observing.clone()));
    world.lead().await;
    let (mut working, mut watching) = (JoinSet::new(), JoinSet::new());
    clients.begin(&mut rng, &mut working, &mut watching);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..FAULTS {
        if seed % 2 == 1 && number % 4 == 2 {
            faults::replace(&world, &mut rng).await;
        }
        faults::one(&world, &mut rng).await;
    }
    // Calm: everybody must make progress again.
    let before = clients.history.written.lock().len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = clients.history.written.lock().len();
    if observer.is_finished() {
        broken(observer.await);
        unreachable!("the observer ends by a broken promise only");
    }
    assert!(after > before + 20, "liveness: {}", standstill(&world, &clients, after - before));
    clients.stop.cancel();
    while let Some(client) = working.join_next().await {
        client.unwrap();
    }
    let revision = converge(&world).await;
    let is_told = || {
        let watched = clients.history.watched.lock();
        let reached = |told: &super::history::Told| told.revision >= revision.get();
        watched.values().all(|one| one.told.last().is_some_and(reached))
    };
    for _ in 0..2000 {
        if is_told() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    observing.cancel();
    let live = broken(observer.await);
    assert!(live.sights > 100, "too little was looked at");
    clients.stop_watching.cancel();
    watching.abort_all();
    while watching.join_next().await.is_some() {}
    invariants::judge(&clients.history);
    invariants::judge_changes(&clients.history);
    let operations = clients.history.operations.lock();
    let unknown = operations.iter().filter(|one| one.returned.is_none()).count();
    assert!(operations.len() > 200, "too little was done to judge");
    let simulated = begun.elapsed();
    Summary { operations: operations.len(), unknown, revision, simulated, trace: world.net.trace() }
}

/// Message by message: whoever looks into a failure sees the same one again.
#[test]
fn a_seed_repeats_itself() {
    for seed in [0, 3] {
        let [first, second] = [(), ()].map(|()| virtual_time(simulate(seed, None)));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Runs one seed, and says how to run it again.
fn run(seed: u64) -> Summary {
    eprintln!(
        "to repeat: KONTIKI_SEED={seed} cargo test -p kontiki-raft --test simulation no_fault"
    );
    let summary = virtual_time(simulate(seed, None));
    eprintln!("seed {seed}: {summary:?}");
    summary
}

#[test]
fn no_fault_breaks_a_promise() {
    if let Ok(filter) = std::env::var("KONTIKI_LOG") {
        let lines = tracing_subscriber::fmt().with_env_filter(filter);
        lines.with_ansi(false).with_writer(std::io::stderr).init();
    }
    match std::env::var("KONTIKI_SEED") {
        Ok(seed) => {
            run(seed.parse().unwrap());
        }
        Err(_) => (0..SEEDS).for_each(|seed| {
            run(seed);
        }),
    }
}

#[test]
fn no_fault_breaks_a_promise_in_a_run_that_never_was() {
    let hours = std::env::var("KONTIKI_HOURS").map(|hours| hours.parse::<f64>().unwrap());
    let first = rand::random_range(1000..u64::MAX / 2);
    let mut simulated = Duration::ZERO;
    for seed in first.. {
        simulated += run(seed).simulated;
        if simulated.as_secs_f64() >= hours.as_ref().map_or(FRESH, |hours| hours * 3600.0) {
            break;
        }
    }
    eprintln!("{simulated:?} simulated");
}
