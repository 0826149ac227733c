//! Leases, as every replica has them: who was granted how long, and which keys live by them.
//!
//! Nothing here knows the time. How long a lease still has is the leader's business (`raft`): it
//! decides when one has run out and says so through the log, and from time to time it notes in the
//! log how much is left, so that the next leader does not begin from the start.
//!
//! ```text
//! tree   key                  value (each a record of `codec`)
//! -----  -------------------  --------------------------------------------
//! State  "lease/" id i64 BE   LeaseTerms
//! State  "leases"             Ledger: how many were ever granted, and the rolling hash of all changes
//! ```
//!
//! Which keys live by a lease stands with the keys, and is gathered at open. Changes of leases take
//! no revision; their hash is folded into that of the next one (R6).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Place};
use crate::engine::{Batch, Engine, EngineError, Tree};
use crate::hash;
use crate::kv::KeyValue;

/// The longest a lease may be granted for, in seconds, as in etcd.
pub const TTL_SECONDS_MAX: i64 = 9_000_000_000;

const PREFIX: &[u8] = b"lease/";
const LEDGER: &[u8] = b"leases";

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its number; never 0.
    pub id: i64,
    /// What it was granted for.
    pub terms: LeaseTerms,
}

/// For how long a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// What was granted, in seconds, and what each renewal gives.
    pub ttl_seconds: i64,
    /// What was left of it when a leader last noted that; `None` is all of it.
    pub remaining_seconds: Option<i64>,
    /// Which of all grants ever made: a number may be granted again once its lease has ended.
    pub grant: u64,
}

/// What all changes of leases so far come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) grants: u64,
    pub(crate) hash: u64,
}

impl LeaseTerms {
    /// What a leader that has just come begins with.
    pub fn left_seconds(&self) -> i64 {
        self.remaining_seconds.unwrap_or(self.ttl_seconds)
    }
}

/// A change of a lease; `None` ends it.
pub(crate) type LeaseChange = (i64, Option<LeaseTerms>);

/// All leases.
#[derive(Debug)]
pub(crate) struct Leases {
    terms: BTreeMap<i64, LeaseTerms>,
    attached: BTreeMap<i64, BTreeSet<Bytes>>,
    ledger: Ledger,
}

impl Default for Leases {
    fn default() -> Self {
        let ledger = Ledger { grants: 0, hash: hash::EMPTY };
        Self { terms: BTreeMap::new(), attached: BTreeMap::new(), ledger }
    }
}

impl Leases {
    /// Those that the engine holds.
    pub(crate) fn load(engine: &dyn Engine) -> Result<Self, EngineError> {
        let mut pairs = Vec::new();
        let to = key(-1);
        let mut keep = |key: &[u8], value| {
            pairs.push((Bytes::copy_from_slice(key), value));
            ControlFlow::Continue(())
        };
        engine.scan(Tree::State, Bound::Included(PREFIX), Bound::Included(&to), &mut keep)?;
        let ledger = engine.get(Tree::State, LEDGER)?;
        pairs.extend(ledger.map(|ledger| (Bytes::from_static(LEDGER), ledger)));
        Self::of(&pairs)
    }

    /// Those among the pairs of [`Tree::State`].
    pub(crate) fn of(pairs: &[(Bytes, Bytes)]) -> Result<Self, EngineError> {
        let mut leases = Self::default();
        for (key, record) in pairs {
            let place = Place { tree: "state", key };
            if &key[..] == LEDGER {
                leases.ledger = codec::decode(record, place)?;
            } else if let Some(id) = id_of(key) {
                leases.terms.insert(id, codec::decode(record, place)?);
            }
        }
        Ok(leases)
    }

    pub(crate) fn terms(&self, id: i64) -> Option<LeaseTerms> {
        self.terms.get(&id).copied()
    }

    pub(crate) fn all(&self) -> Vec<Lease> {
        self.terms.iter().map(|(id, terms)| Lease { id: *id, terms: *terms }).collect()
    }

    /// The keys that live by a lease, in order.
    pub(crate) fn keys(&self, id: i64) -> Vec<Bytes> {
        self.attached.get(&id).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// A key has gone from one state to another; the key's bytes are shared with the latest state.
    pub(crate) fn moved(&mut self, key: &Bytes, before: i64, after: i64) {
        if before == after {
            return;
        }
        if let Some(keys) = self.attached.get_mut(&before) {
            keys.remove(key);
            if keys.is_empty() {
                self.attached.remove(&before);
            }
        }
        if after != 0 {
            self.attached.entry(after).or_default().insert(key.clone());
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Makes changes that are in the engine what is seen.
    pub(crate) fn publish(&mut self, changes: Vec<LeaseChange>, ledger: Ledger) {
        self.ledger = ledger;
        for (id, terms) in changes {
            match terms {
                Some(terms) => self.terms.insert(id, terms),
                None => self.terms.remove(&id),
            };
        }
    }
}

/// The lease by which a key lives that may not exist; 0 is none.
pub(crate) fn of_key(kv: Option<&KeyValue>) -> i64 {
    kv.map_or(0, |kv| kv.lease)
}

impl Ledger {
    /// Adds a change to a batch of the engine, and to the hash.
    pub(crate) fn change(&mut self, batch: &mut Batch, (id, terms): LeaseChange) {
        let key = key(id);
        let record = terms.map(|terms| codec::encode(&terms));
        self.hash = hash::extend(self.hash, &key);
        self.hash = hash::extend(self.hash, record.as_deref().unwrap_or_default());
        match record {
            Some(record) => batch.put(Tree::State, key, record),
            None => batch.delete(Tree::State, key),
        }
        batch.put(Tree::State, LEDGER, codec::encode(self));
    }
}

/// Numbers are positive in etcd's clients; any other sorts behind them.
fn key(id: i64) -> Bytes {
    let mut key = Vec::with_capacity(PREFIX.len() + size_of::<i64>());
    key.extend_from_slice(PREFIX);
    key.extend_from_slice(&id.to_be_bytes());
    key.into()
}

/// Whether a key of [`Tree::State`] is one of those above.
pub(crate) fn owns(key: &[u8]) -> bool {
    key == LEDGER || key.starts_with(PREFIX)
}

fn id_of(key: &[u8]) -> Option<i64> {
    key.strip_prefix(PREFIX)?.try_into().ok().map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests;
