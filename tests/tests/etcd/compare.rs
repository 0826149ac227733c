//! Both sides do the same, step by step.

use kontiki_raft::etcd::proto;

use super::answer::{Answer, Call};
use super::random::{Random, Step};
use super::side::Side;

/// How many steps a seed has: some seconds of them.
const STEPS: usize = 2000;

/// A key that nothing random changes, before all others: since it is there, etcd's checksum is of
/// what the store shows, and not of what is left of it to be removed.
const MARK: &str = "A";

struct Pair {
    etcd: Side,
    kontiki: Side,
    random: Random,
}

/// Compares `STEPS` steps from `seed`, with an etcd on these ports.
pub(crate) async fn run(seed: u64, ports: [u16; 2]) {
    let (etcd, kontiki) = tokio::join!(Side::etcd(ports), Side::kontiki());
    let mut pair = Pair { etcd, kontiki, random: Random::new(seed) };
    pair.settle().await.expect("empty stores must be equal");
    for number in 0..STEPS {
        let step = pair.random.step();
        if let Err(difference) = pair.step(step.clone()).await {
            panic!(
                "seed {seed}, step {number}: {difference}\nof {step:#?}\n\
                 again: KONTIKI_ETCD_SEEDS={seed} cargo nextest run --workspace --test etcd"
            );
        }
    }
    pair.settle()
        .await
        .unwrap_or_else(|difference| panic!("seed {seed}, at its end: {difference}"));
}

impl Pair {
    async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Call(call) => {
                if matches!(call, Call::Compact(_)) {
                    self.settle().await?;
                }
                self.call(call).await.map(drop)
            }
            Step::Watch(request) => self.watch(request).await,
            Step::Cancel(id) => {
                self.settle().await?;
                if !self.etcd.watching.has_ended(id) {
                    tokio::join!(self.etcd.watching.cancel(id), self.kontiki.watching.cancel(id));
                }
                self.random.forget_watches(|one| one == id);
                Ok(())
            }
            Step::Settle => self.settle().await,
        }
    }

    async fn call(&mut self, call: Call) -> Result<Answer, String> {
        let (theirs, ours) =
            tokio::join!(self.etcd.call(call.clone()), self.kontiki.call(call.clone()));
        if !ours.agrees_with(&theirs) {
            return Err(format!("Kontiki answers {ours:#?}\nand etcd {theirs:#?}"));
        }
        self.random.learn(&call, &theirs);
        Ok(theirs)
    }

    async fn watch(&mut self, request: proto::WatchCreateRequest) -> Result<(), String> {
        let (theirs, ours) = tokio::join!(
            self.etcd.watching.create(request.clone()),
            self.kontiki.watching.create(request)
        );
        if ours != theirs {
            return Err(format!("Kontiki answers {ours:#?}\nand etcd {theirs:#?}"));
        }
        self.random.learn_watch(&theirs);
        Ok(())
    }

    /// Waits until every watch was told all there is, and compares it.
    ///
    /// etcd brings watches that begin in the past up to date now and then, all of them together:
    /// once the last one is, they all are.
    async fn settle(&mut self) -> Result<(), String> {
        let put = proto::PutRequest { key: MARK.into(), ..Default::default() };
        let marked = self.call(Call::Put(put)).await?;
        let last = proto::WatchCreateRequest {
            key: MARK.into(),
            start_revision: marked.revision().expect("a put must tell its revision"),
            ..Default::default()
        };
        let (theirs, ours) = tokio::join!(
            self.etcd.watching.create(last.clone()),
            self.kontiki.watching.create(last)
        );
        let (etcd, kontiki) = (&self.etcd.watching, &self.kontiki.watching);
        tokio::join!(etcd.told_event(theirs.watch_id), kontiki.told_event(ours.watch_id));
        kontiki.equal(etcd).await.map_err(|difference| format!("Kontiki tells {difference}"))?;
        self.random.forget_watches(|id| etcd.has_ended(id));
        tokio::join!(etcd.cancel(theirs.watch_id), kontiki.cancel(ours.watch_id));
        tokio::join!(etcd.progress(), kontiki.progress());
        kontiki.equal(etcd).await.map_err(|difference| format!("Kontiki tells {difference}"))
    }
}
