//! How long nobody can write when the leader goes.

use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use super::compare::CompareConfig;
use super::compare::systems::Members;
use super::etcd::Etcd;

/// Between two attempts at each member. They do not wait for one another: what a member holds on to
/// for a leader that is gone must not hide that it could serve again.
const EVERY: Duration = Duration::from_millis(10);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long the cluster may be without a leader.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two faults, when all members answer again.
const CALM: Duration = Duration::from_millis(500);

/// What happens to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGTERM: it may hand over.
    Terminate,
    /// SIGSTOP, until the cluster goes on without it.
    Stop,
}

impl Fault {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "killed (SIGKILL)",
            Self::Terminate => "ended (SIGTERM)",
            Self::Stop => "stopped (SIGSTOP)",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Terminate => Signal::TERM,
            Self::Stop => Signal::STOP,
        }
    }
}

/// Brings the fault upon the leader `count` times. Returns milliseconds from each to the first
/// acknowledgement, by any member, of a write that began after it.
pub async fn run(
    members: &mut Members,
    config: &CompareConfig,
    fault: Fault,
    count: u32,
) -> anyhow::Result<Vec<f64>> {
    let mut outages = Vec::new();
    for _ in 0..count {
        members.all_answer().await?;
        sleep(CALM).await;
        let (leader, process) = members.leader().await?;
        // Connections are open before the fault, as those of clients are.
        let clients = connected(members).await?;
        process.signal(fault.signal())?;
        let outage = next_write(&clients).await;
        if fault == Fault::Stop {
            process.signal(Signal::CONT)?;
        } else {
            members.revive(config, leader).await?;
        }
        outages.push(outage?.as_secs_f64() * 1e3);
    }
    Ok(outages)
}

async fn connected(members: &Members) -> anyhow::Result<Vec<Etcd>> {
    let mut clients = Vec::new();
    for endpoint in &members.endpoints {
        let client = Etcd::new(std::slice::from_ref(endpoint), 1)?;
        client.first_write(Instant::now() + DEADLINE).await?;
        clients.push(client);
    }
    Ok(clients)
}

/// Time until a write that begins now, or later, is acknowledged.
async fn next_write(clients: &[Etcd]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut attempts = JoinSet::new();
    let mut ticks = interval(EVERY);
    while begun.elapsed() < DEADLINE {
        tokio::select! {
            biased;
            Some(Ok(true)) = attempts.join_next() => return Ok(begun.elapsed()),
            _ = ticks.tick() => for client in clients {
                let client = client.clone();
                attempts.spawn(async move {
                    let until = Instant::now() + ATTEMPT;
                    let written = timeout(ATTEMPT, client.one_write(until)).await;
                    matches!(written, Ok(Ok(())))
                });
            },
        }
    }
    anyhow::bail!("no write was acknowledged within {DEADLINE:?} of the fault")
}
