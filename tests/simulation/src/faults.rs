//! Everything that can go wrong, one thing at a time, each for a while.

use std::sync::Arc;
use std::time::Duration;

use kontiki_raft::types::NodeId;
use kontiki_storage::engine::memory::MemoryEngine;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::world::{Running, World, member};

/// How long a change of members may take while something may be wrong.
const CHANGE: Duration = Duration::from_secs(8);

fn millis(rng: &mut StdRng, from: u64, before: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..before))
}

/// A member; of three times twice the leader.
fn victim(world: &World, rng: &mut StdRng) -> NodeId {
    let ids = world.ids();
    let any = ids[rng.random_range(0..ids.len())];
    match rng.random_range(0..3) {
        0 => any,
        _ => world.leader().unwrap_or(any),
    }
}

/// What can go wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash,
    Isolate,
    CutOutgoing,
    CutIncoming,
    Lose,
    Double,
    Delay,
    Pause,
    SlowDisk,
    FailDisk,
}

const FAULTS: [Fault; 11] = [
    Fault::Crash,
    Fault::Crash,
    Fault::Isolate,
    Fault::CutOutgoing,
    Fault::CutIncoming,
    Fault::Lose,
    Fault::Double,
    Fault::Delay,
    Fault::Pause,
    Fault::SlowDisk,
    Fault::FailDisk,
];

/// Does one thing and undoes it.
pub(super) async fn one(world: &Arc<World>, rng: &mut StdRng) {
    let victim = victim(world, rng);
    let others: Vec<NodeId> = world.ids().into_iter().filter(|id| *id != victim).collect();
    let fault = FAULTS[rng.random_range(0..FAULTS.len())];
    tracing::debug!(target: "simulation", at_us = world.net.now(), ?fault, victim, "goes wrong");
    match fault {
        Fault::Crash => crash(world, rng, victim).await,
        Fault::Isolate => world.net.isolate(victim, others.into_iter()),
        Fault::CutOutgoing => others.into_iter().for_each(|other| world.net.cut(victim, other)),
        Fault::CutIncoming => others.into_iter().for_each(|other| world.net.cut(other, victim)),
        Fault::Lose => world.net.lose(rng.random_range(20..250)),
        Fault::Double => world.net.double(rng.random_range(100..500)),
        Fault::Delay => world.net.delay_upto(millis(rng, 20, 200)),
        Fault::Pause => pause(world, rng, victim).await,
        Fault::SlowDisk => slow_disk(world, rng, victim).await,
        Fault::FailDisk => fail_disk(world, rng, victim).await,
    }
    tokio::time::sleep(millis(rng, 100, 2500)).await;
    world.net.heal();
    tracing::debug!(target: "simulation", at_us = world.net.now(), "healed");
    tokio::time::sleep(millis(rng, 0, 800)).await;
}

async fn crash(world: &World, rng: &mut StdRng, victim: NodeId) {
    let kept = rng.random_range(0..20);
    let Some(engine) = world.crash(victim, kept) else { return };
    tokio::time::sleep(millis(rng, 0, 2500)).await;
    world.start(victim, engine).await;
}

/// As SIGSTOP and SIGCONT do, or a machine that is suspended.
async fn pause(world: &World, rng: &mut StdRng, victim: NodeId) {
    let Some(Running { host, .. }) = world.running(victim) else { return };
    host.pause();
    tokio::time::sleep(millis(rng, 50, 4000)).await;
    host.resume();
}

async fn slow_disk(world: &World, rng: &mut StdRng, victim: NodeId) {
    let Some(Running { host, .. }) = world.running(victim) else { return };
    host.set_sync_time(Duration::from_millis(20)..Duration::from_millis(rng.random_range(50..600)));
    tokio::time::sleep(millis(rng, 500, 3000)).await;
    host.set_sync_time(super::world::SYNC);
}

/// A disk of which a sync has failed is not trusted: the member is stopped and started again.
async fn fail_disk(world: &World, rng: &mut StdRng, victim: NodeId) {
    world.fail_disk(victim);
    tokio::time::sleep(millis(rng, 100, 1500)).await;
    crash(world, rng, victim).await;
}

/// Replaces a member: a newcomer under a new number learns, may vote, and the other goes (R8). Where
/// it comes to nothing in time the newcomer stays a learner, or the old one stays as well.
pub(super) async fn replace(world: &Arc<World>, rng: &mut StdRng) {
    let ids = world.ids();
    let old = ids[rng.random_range(0..ids.len())];
    let new = world.new_id();
    world.start(new, Arc::new(MemoryEngine::new())).await;
    tracing::debug!(target: "simulation", at_us = world.net.now(), old, new, "is being replaced");
    let Some(at) = world.running(world.leader().unwrap_or(ids[0])) else { return };
    let node = at.node.clone();
    let changing = at.host.run(async move {
        node.add_learner(new, member(new)).await?;
        node.promote(new).await?;
        node.remove(old).await
    });
    let changed = tokio::time::timeout(CHANGE, changing).await;
    tracing::debug!(target: "simulation", at_us = world.net.now(), ?changed, "replaced");
    if let Ok(Ok(())) = changed {
        world.crash(old, 0);
    }
}
