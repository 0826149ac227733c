//! Those who use the cluster: each does one thing at a time, at whatever member comes to hand, and
//! notes what it asked and what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::kv::{
    Compare, CompareResult, CompareTarget, KeyRange, Kv, KvError, Op, OpResponse, Proposal,
    RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchMessage, WatchRequest,
};
use kontiki_storage::store::{ApplyBatch, StoreCommand};
use kontiki_storage::testing::linearizability::{Answer, Do, Operation, Request};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::history::{Held, History, Told, Written};
use super::seeded::{Bug, Seeded};
use super::world::{Running, World, answered};

const WRITERS: u64 = 4;
const WATCHERS: u64 = 2;
const KEYS: u64 = 4;

/// For how long leases are, in seconds.
const LEASE: i64 = 4;

/// How long a watcher waits for news before it goes to another member.
const NEWS: Duration = Duration::from_secs(3);

/// An answer that takes longer is worth a line in the log.
const SLOW_US: u64 = 1_000_000;

/// What the clients share.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) world: Arc<World>,
    pub(super) history: Arc<History>,
    pub(super) stop: CancellationToken,
    /// Watchers go on until all others have ended.
    pub(super) stop_watching: CancellationToken,
}

impl Clients {
    pub(super) fn begin(&self, rng: &mut StdRng, working: &mut JoinSet<()>, all: &mut JoinSet<()>) {
        for number in 0..WRITERS {
            let rng = StdRng::seed_from_u64(rng.random());
            working.spawn(self.clone().work(number, rng));
        }
        working.spawn(self.clone().lead(StdRng::seed_from_u64(rng.random())));
        working.spawn(self.clone().hold(StdRng::seed_from_u64(rng.random())));
        for number in 0..WATCHERS {
            let rng = StdRng::seed_from_u64(rng.random());
            all.spawn(self.clone().watch(number, rng));
        }
    }

    fn pick(&self, rng: &mut StdRng) -> Option<Running> {
        let all = self.world.all();
        (!all.is_empty()).then(|| all[rng.random_range(0..all.len())].clone())
    }

    fn kv(&self, member: &Running) -> Arc<dyn Kv> {
        Seeded::kv(member.node.kv(), self.world.bug)
    }

    /// Reads and writes.
    async fn work(self, number: u64, mut rng: StdRng) {
        let mut count = 0;
        let mut last_seen: BTreeMap<String, Option<String>> = BTreeMap::new();
        while !self.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
            count += 1;
            let request = choose(&mut rng, &last_seen, &format!("{number}.{count}"));
            let Some(member) = self.pick(&mut rng) else { continue };
            let called = self.history.now();
            let wait = (called, member.node.id(), format!("{:?}", request.success));
            self.history.waits.lock().insert(number, wait);
            let is_read = matches!(&request.success[..], [Do::Get(_)]);
            let told = if is_read {
                self.read(&member, &request).await
            } else {
                self.write(&member, &request, called).await
            };
            let returned = self.history.now();
            let wait = self.history.waits.lock().remove(&number);
            if returned - called > SLOW_US {
                let is_told = told.is_ok();
                tracing::debug!(target: "simulation", number, returned, is_told, ?wait, "was slow");
            }
            let silence = Duration::from_micros(returned - called);
            let mut longest = self.history.silence.lock();
            *longest = longest.max(silence);
            drop(longest);
            let returned = match told {
                Ok(answer) => Some((returned, answer)),
                Err(KvError::Unknown { .. }) => None,
                // Nothing was done.
                Err(_) => continue,
            };
            if let (Some((_, answer)), [Do::Get(key)]) = (&returned, &request.success[..]) {
                last_seen.insert(key.clone(), answer.read[0].clone());
            }
            self.history.operations.lock().push(Operation { request, called, returned });
        }
    }

    async fn read(&self, member: &Running, request: &Request) -> Result<Answer, KvError> {
        let [Do::Get(key)] = &request.success[..] else { panic!("not a read") };
        let range = RangeRequest::new(KeyRange::key(key.clone()));
        let kv = self.kv(member);
        let response = answered(&member.host, async move { kv.range(range).await }).await?;
        Ok(Answer { succeeded: true, read: vec![value(&response)] })
    }

    async fn write(
        &self,
        member: &Running,
        request: &Request,
        called: u64,
    ) -> Result<Answer, KvError> {
        let kv = self.kv(member);
        let txn = transaction(request);
        if self.world.bug == Some(Bug::PublishEarly) {
            publish_early(member, &txn);
        }
        let told = answered(&member.host, async move { kv.txn(txn.into()).await }).await;
        let response = match told {
            Ok(response) => response,
            Err(error) => {
                if !matches!(error, KvError::Unknown { .. }) {
                    let values = puts(&request.success).into_iter().map(|(_, value)| value);
                    self.history.refused.lock().extend(values);
                }
                return Err(error);
            }
        };
        let done = if response.succeeded { &request.success } else { &request.failure };
        let values = puts(done);
        if !values.is_empty() {
            let (revision, returned) = (response.revision.get(), self.history.now());
            self.history.written.lock().push(Written { revision, called, returned, values });
        }
        Ok(answer(&response))
    }

    /// Writes as whoever leads does, under its term (R9).
    async fn lead(self, mut rng: StdRng) {
        let mut count = 0_u64;
        while !self.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(rng.random_range(50..200))).await;
            let Some(leader) = self.world.leader().and_then(|id| self.world.running(id)) else {
                continue;
            };
            let term = leader.node.leadership().borrow().term;
            count += 1;
            let op = Op::put("leader", format!("term {} {count}", term.0));
            let txn = Txn { success: vec![op], ..Txn::default() };
            let (kv, proposal) = (leader.node.kv(), Proposal { txn, fence: Some(term) });
            if let Ok(done) = answered(&leader.host, async move { kv.txn(proposal).await }).await {
                self.history.fenced.lock().push((done.revision.get(), term.0));
            }
        }
    }

    /// Holds one lease after another, each for a while.
    async fn hold(self, mut rng: StdRng) {
        let mut count = 0_u64;
        while !self.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let Some(member) = self.pick(&mut rng) else { continue };
            count += 1;
            let id = i64::try_from(count).unwrap();
            let node = member.node.clone();
            let asked = self.history.now();
            let granting = async move { node.grant_lease(Some(id), LEASE).await };
            if answered(&member.host, granting).await.is_err() {
                continue;
            }
            let key = format!("lease/{id}");
            let (lease, value) = (Some(id), Some("held".into()));
            let put = Op::Put { key: key.clone().into(), value, lease, prev_kv: false };
            let txn = Txn { success: vec![put], ..Txn::default() };
            let kv = member.node.kv();
            if answered(&member.host, async move { kv.txn(txn.into()).await }).await.is_err() {
                continue;
            }
            let lease_us = u64::try_from(LEASE).unwrap() * 1_000_000;
            let mut held = Held { key, promised_until: asked + lease_us };
            let until = Instant::now() + Duration::from_secs(rng.random_range(2..15));
            while Instant::now() < until && !self.stop.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(rng.random_range(300..1200))).await;
                let Some(member) = self.pick(&mut rng) else { continue };
                let asked = self.history.now();
                let node = member.node.clone();
                let renewing = async move { node.renew_leases(&[id]).await };
                if let Ok([Some(_)]) = answered(&member.host, renewing).await.as_deref() {
                    held.promised_until = asked + lease_us;
                }
                if self.world.bug == Some(Bug::ExpireAsDeposedLeader) && count == 2 {
                    // As one would whose clock says that it has run out, without its term.
                    let node = member.node.clone();
                    let _ =
                        answered(&member.host, async move { node.revoke_lease(id).await }).await;
                }
            }
            self.history.held.lock().push(held);
        }
    }

    /// Watches everything from the beginning on, here and there.
    async fn watch(self, number: u64, mut rng: StdRng) {
        let mut next = 2;
        self.history.watched.lock().insert(number, super::history::Watched::default());
        while !self.stop_watching.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Some(member) = self.pick(&mut rng) else { continue };
            let start = Some(Revision::new(next));
            let request = WatchRequest { range: KeyRange::all(), start, prev_kv: false };
            let Ok(mut watcher) = member.node.kv().watch(request).await else { continue };
            self.history.watched.lock().get_mut(&number).unwrap().resumed += 1;
            loop {
                let news = tokio::time::timeout(NEWS, member.host.run(watcher.next()));
                let Ok(Some(Ok(message))) = news.await else { break };
                let is_news = matches!(message, WatchMessage::Events(_));
                self.take(number, message, &mut next);
                if self.stop_watching.is_cancelled() {
                    return;
                }
                if is_news {
                    watcher.request_progress();
                }
            }
        }
    }

    fn take(&self, number: u64, message: WatchMessage, next: &mut u64) {
        let now = self.history.now();
        let mut all = self.history.watched.lock();
        let watched = all.get_mut(&number).unwrap();
        match message {
            WatchMessage::Events(events) => {
                let told: Vec<Told> = events.iter().map(Told::of).collect();
                *next = told.last().unwrap().revision + 1;
                self.note_ends(&told, now);
                watched.told.extend(told);
            }
            WatchMessage::Progress(revision) => {
                watched.progress.push((watched.told.len(), revision.get()));
            }
        }
    }

    /// When keys of leases were first seen to be gone.
    fn note_ends(&self, told: &[Told], now: u64) {
        let mut gone = self.history.gone.lock();
        for one in told.iter().filter(|one| one.value.is_none()) {
            if one.key.starts_with("lease/") {
                gone.entry(one.key.clone()).or_insert(now);
            }
        }
    }
}

/// Shows a write at one member before it is anywhere in the log.
fn publish_early(member: &Running, txn: &Txn) {
    let store = member.node.store();
    if let Some(applied) = store.applied() {
        let commands = vec![StoreCommand::Txn(txn.clone())];
        // It may have found out that it differs, and have stopped.
        let _ = store.apply(ApplyBatch { commands, applied, ..ApplyBatch::default() });
    }
}

/// What a client does next: the value is its own.
fn choose(rng: &mut StdRng, last_seen: &BTreeMap<String, Option<String>>, value: &str) -> Request {
    let number = rng.random_range(0..KEYS);
    let key = format!("key/{number}");
    let put = Do::Put(key.clone(), value.to_owned());
    let success = match rng.random_range(0..10) {
        0..4 => vec![Do::Get(key)],
        4..7 => vec![put],
        7 => vec![Do::Delete(key)],
        8 => {
            let expected = last_seen.get(&key).cloned().flatten();
            let failure = vec![Do::Get(key.clone())];
            return Request { compare: vec![(key, expected)], success: vec![put], failure };
        }
        // Two keys at once, always the same two, so that the others stay apart.
        _ => {
            let both = ["both/0", "both/1"].map(str::to_owned);
            let puts = both.clone().map(|key| Do::Put(key, value.to_owned()));
            let gets = both.map(Do::Get);
            gets.into_iter().chain(puts).collect()
        }
    };
    Request { success, ..Request::default() }
}

fn transaction(request: &Request) -> Txn {
    let ops = |acts: &[Do]| acts.iter().map(op).collect();
    let compare = request.compare.iter().map(|(key, value)| match value {
        None => Compare::unchanged_since(key.clone(), Revision::ZERO),
        Some(value) => Compare {
            range: KeyRange::key(key.clone()),
            result: CompareResult::Equal,
            target: CompareTarget::Value(value.clone().into()),
        },
    });
    Txn {
        compare: compare.collect(),
        success: ops(&request.success),
        failure: ops(&request.failure),
    }
}

fn op(act: &Do) -> Op {
    match act {
        Do::Get(key) => Op::get(key.clone()),
        Do::Put(key, value) => Op::put(key.clone(), value.clone()),
        Do::Delete(key) => Op::delete(key.clone()),
    }
}

fn puts(acts: &[Do]) -> Vec<(String, String)> {
    let put = |act: &Do| match act {
        Do::Put(key, value) => Some((key.clone(), value.clone())),
        Do::Get(_) | Do::Delete(_) => None,
    };
    acts.iter().filter_map(put).collect()
}

fn value(response: &RangeResponse) -> Option<String> {
    response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

fn answer(response: &TxnResponse) -> Answer {
    let read = response.responses.iter().filter_map(|one| match one {
        OpResponse::Range(range) => Some(value(range)),
        _ => None,
    });
    Answer { succeeded: response.succeeded, read: read.collect() }
}
