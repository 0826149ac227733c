//! What to do next, from a seed and what the store is known to hold.

use std::collections::BTreeSet;

use bytes::Bytes;
use kontiki_raft::etcd::proto;
use proto::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::range_request::{SortOrder, SortTarget};
use proto::request_op::Request;
use proto::watch_create_request::FilterType;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::answer::{Answer, Call, op};

/// Few keys, so that they meet often. With the mark they are not more than twelve, since of equal
/// ones etcd's sort keeps the order only up to there.
const KEYS: [&str; 11] = ["a", "a/1", "a/2", "a/3", "aa", "b", "b/1", "d", "d/long/er", "x", "~"];

/// The numbers that leases are given.
const LEASES: i64 = 6;

/// How deep transactions are nested.
const DEPTH_MAX: u32 = 3;

/// One thing to do.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Call(Call),
    Watch(proto::WatchCreateRequest),
    Cancel(i64),
    /// Compare what the watches were told so far.
    Settle,
}

/// A source of steps.
pub(crate) struct Random {
    rng: StdRng,
    now: i64,
    compacted: i64,
    leases: BTreeSet<i64>,
    watches: BTreeSet<i64>,
    /// How many watches there ever were, so that a number is given once.
    watched: i64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: 1,
            compacted: 0,
            leases: BTreeSet::new(),
            watches: BTreeSet::new(),
            watched: 0,
        }
    }

    /// Takes note of what etcd answered.
    pub(crate) fn learn(&mut self, call: &Call, answer: &Answer) {
        self.now = answer.revision().unwrap_or(self.now);
        match (call, answer) {
            (Call::Compact(request), Answer::Compact(_)) => self.compacted = request.revision,
            (_, Answer::Grant(grant)) => drop(self.leases.insert(grant.id)),
            (Call::Revoke(request), Answer::Revoke(_)) => drop(self.leases.remove(&request.id)),
            _ => {}
        }
    }

    /// Takes note of what etcd answered to a watch.
    pub(crate) fn learn_watch(&mut self, created: &proto::WatchResponse) {
        if !created.canceled {
            self.watches.insert(created.watch_id);
        }
    }

    /// Takes note that watches have ended. Their numbers are not used again: those that etcd ended
    /// it does not give up until the client has ended them, too.
    pub(crate) fn forget_watches(&mut self, has_ended: impl Fn(i64) -> bool) {
        self.watches.retain(|id| !has_ended(*id));
    }

    pub(crate) fn step(&mut self) -> Step {
        match self.rng.random_range(0..1000) {
            0..300 => Step::Call(Call::Put(self.put())),
            300..550 => Step::Call(Call::Range(self.range())),
            550..640 => Step::Call(Call::DeleteRange(self.delete())),
            640..860 => Step::Call(Call::Txn(self.whole_txn())),
            860..868 => Step::Call(Call::Compact(self.compaction())),
            868..893 => Step::Call(Call::Grant(self.grant())),
            893..905 => Step::Call(Call::Revoke(proto::LeaseRevokeRequest { id: self.lease() })),
            905..915 => {
                let id = self.lease();
                Step::Call(Call::KeepAlive(proto::LeaseKeepAliveRequest { id }))
            }
            915..935 => {
                let (id, keys) = (self.lease(), self.rng.random());
                Step::Call(Call::TimeToLive(proto::LeaseTimeToLiveRequest { id, keys }))
            }
            935..945 => Step::Call(Call::Leases),
            945..960 => {
                let revision = self.revision().max(0);
                Step::Call(Call::HashKv(proto::HashKvRequest { revision }))
            }
            960..985 => Step::Watch(self.watch()),
            985..995 => {
                match self.watches.iter().copied().collect::<Vec<_>>().choose(&mut self.rng) {
                    Some(id) => Step::Cancel(*id),
                    None => Step::Settle,
                }
            }
            _ => Step::Settle,
        }
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.rng.random_ratio(1, times)
    }

    fn key(&mut self) -> Bytes {
        if self.one_in(100) {
            return Bytes::new();
        }
        Bytes::from_static(KEYS.choose(&mut self.rng).expect("there must be keys").as_bytes())
    }

    fn value(&mut self) -> Bytes {
        let length = match self.rng.random_range(0..2000) {
            // Larger than any request may be.
            0 => 1_600_000,
            1..20 => 3_000,
            20..200 => 0,
            _ => self.rng.random_range(1..4),
        };
        let letter = self.rng.random_range(b'a'..=b'f');
        vec![letter; length].into()
    }

    /// A key and an end of a range.
    fn keys(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        match self.rng.random_range(0..10) {
            0..4 => (key, Bytes::new()),
            4..7 => {
                let end = self.key();
                (key, end)
            }
            7 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            8 => (key, Bytes::from_static(b"\0")),
            _ => {
                let end = kontiki_storage::kv::prefix_end(&key);
                (key, end.unwrap_or_else(|| Bytes::from_static(b"\0")))
            }
        }
    }

    /// A revision that is asked for.
    fn revision(&mut self) -> i64 {
        match self.rng.random_range(0..20) {
            0..10 => 0,
            10 => self.now + self.rng.random_range(0..3),
            // Not before the first compaction: what etcd makes of a negative number in a
            // transaction then is how it writes down that there was none.
            11 | 12 if self.compacted == 0 => 0,
            11 => self.compacted + self.rng.random_range(-2..3),
            12 => -self.rng.random_range(1..3),
            13..16 => self.rng.random_range(1..=self.now),
            _ => self.rng.random_range(self.compacted.max(1)..=self.now),
        }
    }

    fn lease(&mut self) -> i64 {
        self.rng.random_range(0..=LEASES)
    }

    fn put(&mut self) -> proto::PutRequest {
        let (ignore_value, ignore_lease) = (self.one_in(12), self.one_in(12));
        let value = if ignore_value && !self.one_in(8) { Bytes::new() } else { self.value() };
        let has_lease = if ignore_lease { self.one_in(8) } else { self.one_in(3) };
        proto::PutRequest {
            key: self.key(),
            value,
            lease: if has_lease { self.lease() } else { 0 },
            prev_kv: self.rng.random(),
            ignore_value,
            ignore_lease,
        }
    }

    fn bound(&mut self) -> i64 {
        if self.one_in(6) { self.rng.random_range(-1..=self.now + 1) } else { 0 }
    }

    fn range(&mut self) -> proto::RangeRequest {
        const ORDERS: [SortOrder; 3] = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
        const TARGETS: [SortTarget; 5] = [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ];
        let (key, range_end) = self.keys();
        let is_sorted = self.one_in(3);
        let order = if is_sorted { *ORDERS.choose(&mut self.rng).unwrap() } else { ORDERS[0] };
        let target = if is_sorted { *TARGETS.choose(&mut self.rng).unwrap() } else { TARGETS[0] };
        proto::RangeRequest {
            key,
            range_end,
            limit: if self.one_in(3) { self.rng.random_range(-1..6) } else { 0 },
            revision: self.revision(),
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: self.one_in(4),
            keys_only: self.one_in(5),
            count_only: self.one_in(8),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    fn delete(&mut self) -> proto::DeleteRangeRequest {
        let (key, range_end) = self.keys();
        // All of it at once leaves little to be compared.
        let range_end = if self.one_in(3) { range_end } else { Bytes::new() };
        // Nor must the mark be deleted.
        let key = if key == "\0" { Bytes::from_static(b"a") } else { key };
        proto::DeleteRangeRequest { key, range_end, prev_kv: self.rng.random() }
    }

    fn compare(&mut self) -> proto::Compare {
        const RESULTS: [CompareResult; 4] = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        const TARGETS: [CompareTarget; 5] = [
            CompareTarget::Version,
            CompareTarget::Create,
            CompareTarget::Mod,
            CompareTarget::Value,
            CompareTarget::Lease,
        ];
        let (key, range_end) = self.keys();
        let target = *TARGETS.choose(&mut self.rng).unwrap();
        // Now and then it names something for another target, or nothing.
        let named = if self.one_in(10) { *TARGETS.choose(&mut self.rng).unwrap() } else { target };
        let union = match named {
            CompareTarget::Version => TargetUnion::Version(self.rng.random_range(-1..4)),
            CompareTarget::Create => TargetUnion::CreateRevision(self.revision()),
            CompareTarget::Mod => TargetUnion::ModRevision(self.revision()),
            CompareTarget::Value => TargetUnion::Value(self.value().slice(..0)),
            CompareTarget::Lease => TargetUnion::Lease(self.lease()),
        };
        proto::Compare {
            result: RESULTS.choose(&mut self.rng).copied().unwrap().into(),
            target: target.into(),
            key,
            range_end,
            target_union: (!self.one_in(20)).then_some(union),
        }
    }

    /// A transaction that etcd survives: one that deletes from a key on and puts a key there that
    /// is to keep its value ends etcd.
    fn whole_txn(&mut self) -> proto::TxnRequest {
        loop {
            let txn = self.txn(0);
            if !(has(&txn, &keeps) && has(&txn, &deletes_to_the_end)) {
                return txn;
            }
        }
    }

    fn txn(&mut self, depth: u32) -> proto::TxnRequest {
        let compares = self.rng.random_range(0..3);
        let compare = (0..compares).map(|_| self.compare()).collect();
        proto::TxnRequest { compare, success: self.ops(depth), failure: self.ops(depth) }
    }

    fn ops(&mut self, depth: u32) -> Vec<proto::RequestOp> {
        let count = if self.one_in(200) { 129 } else { self.rng.random_range(0..4) };
        (0..count).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u32) -> proto::RequestOp {
        if self.one_in(400) {
            return proto::RequestOp { request: None };
        }
        op(match self.rng.random_range(0..10) {
            0..4 => Request::RequestPut(self.put()),
            4..7 => Request::RequestRange(self.range()),
            7 => Request::RequestDeleteRange(self.delete()),
            _ if depth < DEPTH_MAX => Request::RequestTxn(self.txn(depth + 1)),
            _ => Request::RequestPut(self.put()),
        })
    }

    fn compaction(&mut self) -> proto::CompactionRequest {
        let revision = match self.rng.random_range(0..8) {
            0 => self.now + self.rng.random_range(0..3),
            1 => self.compacted - self.rng.random_range(0..2),
            _ => self.rng.random_range(self.compacted + 1..=self.now.max(self.compacted + 1)),
        };
        proto::CompactionRequest { revision: revision.max(1), physical: self.rng.random() }
    }

    fn grant(&mut self) -> proto::LeaseGrantRequest {
        let id = self.rng.random_range(1..=LEASES);
        // Far enough apart that their order is not a matter of when they were granted.
        let ttl = if self.one_in(20) { 9_000_000_001 } else { 1000 * (1 + (id * 5) % 7) };
        proto::LeaseGrantRequest { id, ttl }
    }

    fn watch(&mut self) -> proto::WatchCreateRequest {
        let (key, range_end) = self.keys();
        let start_revision = match self.rng.random_range(0..10) {
            0..3 => 0,
            3 => self.now + self.rng.random_range(0..4),
            4 => self.rng.random_range(1..=self.compacted.max(2) - 1),
            // Not from the compacted revision itself: etcd 3.4 has lost the deletions there.
            _ => self.rng.random_range(self.compacted + 1..=self.now.max(self.compacted + 1)),
        };
        let filters = match self.rng.random_range(0..6) {
            0 => vec![FilterType::Noput.into()],
            1 => vec![FilterType::Nodelete.into()],
            2 => vec![FilterType::Noput.into(), FilterType::Nodelete.into()],
            _ => Vec::new(),
        };
        self.watched += 1;
        let watch_id = match self.rng.random_range(0..10) {
            // A number that is taken.
            0 => self.watches.iter().copied().next().unwrap_or_default(),
            1 => 1000 + self.watched,
            _ => 0,
        };
        proto::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.rng.random(),
            filters,
            prev_kv: self.rng.random(),
            watch_id,
            fragment: self.one_in(4),
        }
    }
}

/// Whether any operation of a transaction, at any depth, is such a one.
fn has(txn: &proto::TxnRequest, is_such: &dyn Fn(&Request) -> bool) -> bool {
    let ops = txn.success.iter().chain(&txn.failure);
    ops.filter_map(|op| op.request.as_ref()).any(|request| match request {
        Request::RequestTxn(inner) => has(inner, is_such),
        request => is_such(request),
    })
}

fn keeps(request: &Request) -> bool {
    matches!(request, Request::RequestPut(put) if put.ignore_value || put.ignore_lease)
}

fn deletes_to_the_end(request: &Request) -> bool {
    matches!(request, Request::RequestDeleteRange(delete) if delete.range_end == "\0")
}
