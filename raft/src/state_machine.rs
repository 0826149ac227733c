//! Applies committed entries to the store, in order, several at a time.
//!
//! For each entry it is decided here, from the log alone and so on every member alike, whether it
//! still counts: a proposal that was applied before gets its first outcome again (R10), one whose
//! leader is past is refused (R9). The applied position, the memory of outcomes and the membership
//! go into the same atomic batch as the data (R2).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use kontiki_storage::engine::Engine;
use kontiki_storage::latest;
use kontiki_storage::snapshot::Installer;
use kontiki_storage::store::{ApplyBatch, Store};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;

use crate::blocking::Runner;
use crate::codec;
use crate::command::Outcome;
use crate::config::Blocking;
use crate::error::NodeError;
use crate::log_store::LogStore;
use crate::snapshot::{SnapshotBuilder, SnapshotData};
use crate::types::{Entry, LogId, Membership, StoredMembership, TypeConfig};
use crate::wire;

mod outcomes;
mod plan;
mod sidecar;

use outcomes::Outcomes;
use plan::Plan;

/// How many entries are applied as one batch.
const BATCH_ENTRIES: usize = 256;

/// How many bytes of commands are applied as one batch; one entry may be larger, alone.
const BATCH_BYTES: usize = 1 << 20;

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// The state machine of one node.
pub struct StateMachine {
    core: Arc<Core>,
    runner: Runner,
}

/// What the state machine shares with its snapshot builders.
pub(crate) struct Core {
    pub(crate) store: Store,
    state: Mutex<State>,
    log: LogStore,
    applied_index: latest::Sender<u64>,
    pub(crate) blocking: Blocking,
}

/// What is known beside the store, at the applied position.
struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    outcomes: Outcomes,
}

impl StateMachine {
    /// Opens the state machine over `store`, whose log is `log`.
    pub fn open(store: Store, log: LogStore, blocking: Blocking) -> Result<Self, NodeError> {
        let state = State::load(&store)?;
        log.set_durable_applied(state.applied.map_or(0, |id| id.index));
        let applied_index = latest::Sender::new(state.applied.map_or(0, |id| id.index));
        let core = Core { store, state: Mutex::new(state), log, applied_index, blocking };
        Ok(Self { core: Arc::new(core), runner: Runner::start("raft-apply", blocking)? })
    }

    /// Follows the index up to which the log is applied.
    pub(crate) fn subscribe_applied(&self) -> latest::Receiver<u64> {
        self.core.applied_index.subscribe()
    }

    /// The last entry that is applied; 0 where none is.
    pub(crate) fn applied_index(&self) -> u64 {
        self.core.state.lock().applied.map_or(0, |id| id.index)
    }

    /// The members as of then.
    pub(crate) fn membership(&self) -> Membership {
        self.core.state.lock().membership.membership().clone()
    }

    /// Applies entries on this thread, with nobody to tell what they came to.
    pub(crate) fn apply_now(&self, entries: &[Entry]) -> io::Result<()> {
        self.core.apply(entries).map(drop)
    }

    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Core) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let core = Arc::clone(&self.core);
        let result = self.runner.run(move || act(&core)).await;
        result.unwrap_or_else(|| Err(io::Error::other("the thread that applies has stopped")))
    }

    async fn apply_batch(&self, batch: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let (entries, responders): (Vec<Entry>, Vec<_>) = batch.into_iter().unzip();
        let outcomes = self.run(move |core| core.apply(&entries)).await?;
        respond(responders, outcomes);
        Ok(())
    }
}

fn respond(responders: Vec<Option<ApplyResponder<TypeConfig>>>, outcomes: Vec<Outcome>) {
    assert_eq!(responders.len(), outcomes.len(), "every entry must have an outcome");
    for (responder, outcome) in responders.into_iter().zip(outcomes) {
        if let Some(responder) = responder {
            responder.send(outcome);
        }
    }
}

impl State {
    fn load(store: &Store) -> Result<Self, NodeError> {
        let broken = |what: &str, error: &dyn std::fmt::Display| NodeError::Log {
            reason: format!("{what} of the state: {error}"),
        };
        let applied = match store.applied() {
            Some(bytes) => Some(decode_applied(&bytes).map_err(|e| broken("log position", &e))?),
            None => None,
        };
        let engine: &dyn Engine = &**store.engine();
        let membership = sidecar::load_membership(engine)?;
        let outcomes = Outcomes::load(engine)?;
        Ok(Self { applied, membership: membership.unwrap_or_default(), outcomes })
    }
}

/// A position in the log, in the words of the store's head.
pub(crate) fn encode_applied(id: &LogId) -> Bytes {
    codec::encode(&(id.leader_id.term, id.index))
}

/// What a cluster that begins with a state has beside it.
pub(crate) fn founding_state(membership: &StoredMembership) -> Vec<(Bytes, Bytes)> {
    vec![sidecar::membership_pair(membership)]
}

fn decode_applied(bytes: &[u8]) -> Result<LogId, codec::CodecError> {
    codec::decode::<(u64, u64)>(bytes).map(|(term, index)| wire::log_id(term, index))
}

impl Core {
    /// Applies entries in order; one outcome for each.
    fn apply(&self, entries: &[Entry]) -> io::Result<Vec<Outcome>> {
        let mut state = self.state.lock();
        let mut outcomes = Vec::with_capacity(entries.len());
        while outcomes.len() < entries.len() {
            // A plan ends early before a repetition of one of its own proposals.
            let plan = Plan::of(&entries[outcomes.len()..], &mut state.outcomes);
            self.carry_out(&mut state, plan, &mut outcomes)?;
        }
        let index = state.applied.map_or(0, |id| id.index);
        drop(state);
        self.applied_index.send_replace(index);
        Ok(outcomes)
    }

    fn carry_out(
        &self,
        state: &mut State,
        plan: Plan,
        outcomes: &mut Vec<Outcome>,
    ) -> io::Result<()> {
        let Plan { verdicts, commands, applied, membership } = plan;
        assert!(state.applied < Some(applied), "R2: entries must be applied once, in order");
        let mut batch =
            ApplyBatch { commands, applied: encode_applied(&applied), ..ApplyBatch::default() };
        if let Some(membership) = &membership {
            sidecar::put_membership(&mut batch.sidecar, membership);
        }
        let memory = &mut state.outcomes;
        let mut results = Vec::with_capacity(verdicts.len());
        self.store
            .apply_with(batch, |applied_outcomes, sidecar| {
                results = plan::settle(verdicts, applied_outcomes, memory);
                memory.write(applied.index, sidecar);
            })
            .map_err(io::Error::other)?;
        state.applied = Some(applied);
        if let Some(membership) = membership {
            state.membership = membership;
        }
        outcomes.extend(results);
        Ok(())
    }

    /// A view of the state as it is, once that is on stable storage; lets the log before it go.
    pub(crate) fn sync(&self) -> io::Result<Snapshot> {
        let view = self.view()?;
        self.store.sync().map_err(io::Error::other)?;
        self.log.set_durable_applied(view.meta.last_log_id.map_or(0, |id| id.index));
        Ok(view)
    }

    /// A view of the state as it is.
    fn view(&self) -> io::Result<Snapshot> {
        // With the state locked nothing is applied: the view is of this very position.
        let state = self.state.lock();
        let snapshot = self.store.snapshot().map_err(io::Error::other)?;
        let meta =
            SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        assert_eq!(
            snapshot.applied(),
            state.applied.as_ref().map(encode_applied).as_ref(),
            "R2: the store must stand where the state machine does"
        );
        Ok(Snapshot { meta, snapshot: SnapshotData::Outgoing(Box::new(snapshot)) })
    }

    fn current(&self) -> io::Result<Option<Snapshot>> {
        let is_empty = self.state.lock().applied.is_none();
        if is_empty { Ok(None) } else { self.view().map(Some) }
    }

    fn install(&self, meta: SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let installer = match data {
            SnapshotData::Incoming(installer) => installer,
            SnapshotData::Outgoing(view) => self.copy(*view)?,
        };
        let mut state = self.state.lock();
        installer.finish().map_err(io::Error::other)?;
        let loaded = State::load(&self.store).map_err(io::Error::other)?;
        if loaded.applied != meta.last_log_id {
            return Err(io::Error::other("the snapshot is not of the position that it claims"));
        }
        *state = State { membership: meta.last_membership, ..loaded };
        let index = state.applied.map_or(0, |id| id.index);
        drop(state);
        // The store has made it durable.
        self.log.set_durable_applied(index);
        self.applied_index.send_replace(index);
        Ok(())
    }

    /// Receives a view that did not come by a network.
    fn copy(&self, mut view: kontiki_storage::snapshot::Snapshot) -> io::Result<Box<Installer>> {
        let mut installer = self.store.begin_install().map_err(io::Error::other)?;
        while let Some(chunk) = view.next_chunk().map_err(io::Error::other)? {
            installer.push(&chunk).map_err(io::Error::other)?;
        }
        Ok(Box::new(installer))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.core.state.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            bytes += match &entry.payload {
                EntryPayload::Normal(command) => command.len_bytes(),
                EntryPayload::Blank | EntryPayload::Membership(_) => 0,
            };
            batch.push((entry, responder));
            if batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                self.apply_batch(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.apply_batch(batch).await }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::of(Arc::clone(&self.core))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let meta = meta.clone();
        self.run(move |core| core.install(meta, snapshot)).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.run(Core::current).await
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let core = Arc::clone(self.core());
        let syncing = move || core.sync();
        match self.core().blocking {
            Blocking::Inline => syncing(),
            // Beside apply, which a slow disk must not hold up.
            Blocking::Threads => {
                tokio::task::spawn_blocking(syncing).await.map_err(io::Error::other)?
            }
        }
    }
}

#[cfg(test)]
mod tests;
