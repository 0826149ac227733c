//! Clients, and everything that can go wrong, for a while; then calm, and the judgement.

use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::kv::Revision;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::history::{History, Told};
use super::seeded::Bug;
use super::world::{ANSWER, World, virtual_time};
use super::{faults, invariants, observer};

/// How long it is calm in the end, and how many writes must succeed in it.
const CALM: Duration = Duration::from_secs(5);
const CALM_WRITES: usize = 20;

/// How many things go wrong in one run.
const FAULTS: usize = 10;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many requests of clients were judged, and of how many the outcome was not known.
    pub operations: usize,
    /// See `operations`.
    pub unknown: usize,
    /// Where the store stood in the end, and the hash of what it held.
    pub revision: Revision,
    /// See `revision`.
    pub hash: u64,
    /// How long it took by the cluster's clock.
    pub simulated: Duration,
    /// A checksum of the messages: another run of the seed that has it as well went the same way.
    pub trace: u64,
}

/// Waits, in virtual time, for all members to stand at the same state (R6).
async fn converge(world: &World) -> (Revision, u64) {
    for _ in 0..6000 {
        let hashes: Vec<_> = world.all().iter().map(|one| one.node.store().hash()).collect();
        let applied: Vec<_> =
            world.all().iter().map(|one| one.node.status().applied_index).collect();
        let equal = hashes.iter().all(|hash| *hash == hashes[0]);
        if equal && applied.iter().all(|index| *index == applied[0]) {
            return hashes[0];
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

/// Runs a seed, in a cluster with `bug` if one is put in. Panics where an invariant does not hold.
pub fn run(seed: u64, bug: Option<Bug>) -> Summary {
    virtual_time(simulate(seed, bug))
}

/// One run. All that it does follows from `seed`.
async fn simulate(seed: u64, bug: Option<Bug>) -> Summary {
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
    trouble(seed, &world, &mut rng).await;
    let written = calm(&clients).await;
    if observer.is_finished() {
        broken(observer.await);
        unreachable!("the observer ends by a broken promise only");
    }
    assert!(written > CALM_WRITES, "liveness: {}", standstill(&world, &clients, written));
    clients.stop.cancel();
    while let Some(client) = working.join_next().await {
        broken(client);
    }
    let (revision, hash) = converge(&world).await;
    catch_up(&clients, revision).await;
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
    let (operations, simulated, trace) = (operations.len(), begun.elapsed(), world.net.trace());
    Summary { operations, unknown, revision, hash, simulated, trace }
}

/// Everything that goes wrong. With an odd seed members are replaced besides.
async fn trouble(seed: u64, world: &Arc<World>, rng: &mut StdRng) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..FAULTS {
        if seed % 2 == 1 && number % 4 == 2 {
            faults::replace(world, rng).await;
        }
        faults::one(world, rng).await;
    }
}

/// Nothing goes wrong for a while: how much was written meanwhile. Where all clients asked one
/// machine before it crashed, they wait in vain for its answer first: they are left that time.
async fn calm(clients: &Clients) -> usize {
    let written = || clients.history.written.lock().len();
    let before = written();
    tokio::time::sleep(CALM).await;
    if written() - before <= CALM_WRITES {
        tokio::time::sleep(ANSWER).await;
    }
    written() - before
}

/// Waits for all watchers to be told of `revision`; that they were is judged later.
async fn catch_up(clients: &Clients, revision: Revision) {
    let is_told = || {
        let watched = clients.history.watched.lock();
        let reached = |told: &Told| told.revision >= revision.get();
        watched.values().all(|one| one.told.last().is_some_and(reached))
    };
    for _ in 0..2000 {
        if is_told() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
