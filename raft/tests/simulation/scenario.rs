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
const SEEDS: u64 = 3;

/// How many things go wrong in one run.
const FAULTS: usize = 10;

/// What a run came to.
#[derive(Debug)]
#[allow(dead_code, reason = "it is printed")]
pub(super) struct Summary {
    operations: usize,
    unknown: usize,
    revision: Revision,
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

/// What a task came to; its panic goes on here.
fn broken<T>(task: Result<T, tokio::task::JoinError>) -> T {
    task.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// One run. All that it does follows from `seed`.
pub(super) async fn simulate(seed: u64, bug: Option<Bug>) -> Summary {
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
    let all = || world.all().iter().map(|one| one.node.status()).collect::<Vec<_>>();
    assert!(after > before + 20, "liveness: no progress after the faults have ended: {:#?}", all());
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
    Summary { operations: operations.len(), unknown, revision, trace: world.net.trace() }
}

#[test]
fn no_fault_breaks_a_promise() {
    if let Ok(filter) = std::env::var("KONTIKI_LOG") {
        let lines = tracing_subscriber::fmt().with_env_filter(filter);
        lines.with_ansi(false).with_writer(std::io::stderr).init();
    }
    let only = std::env::var("KONTIKI_SEED").ok().map(|seed| seed.parse().unwrap());
    let hours = std::env::var("KONTIKI_HOURS").ok().map(|hours| hours.parse::<f64>().unwrap());
    let seeds = match (only, hours) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(_)) => rand::random_range(1000..u64::MAX / 2)..u64::MAX,
        (None, None) => 0..SEEDS,
    };
    let began = std::time::Instant::now();
    for seed in seeds {
        eprintln!("to repeat: KONTIKI_SEED={seed} cargo test -p kontiki-raft --test simulation");
        let (summary, simulated) = virtual_time(async {
            let begun = tokio::time::Instant::now();
            let summary = simulate(seed, None).await;
            (summary, begun.elapsed())
        });
        eprintln!("seed {seed}: {simulated:?} simulated: {summary:?}");
        if hours.is_some_and(|hours| began.elapsed().as_secs_f64() > hours * 3600.0) {
            break;
        }
    }
}
