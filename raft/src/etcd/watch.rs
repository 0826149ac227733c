//! The service `Watch`: any number of watches on one stream.
//!
//! ```text
//!  requests ──▶ Session ──▶ answers (bounded; who does not read is not sent more)
//!                 ▲ │ create: a Watcher of the store each
//!      SelectAll ─┘ └─ what a watcher says ─▶ response
//! ```
//!
//! One task owns the stream. While it waits for its client, the store's queues fill up, and a
//! watcher that was closed for that begins again behind what it was sent: nothing is lost, and
//! nobody else waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{AbortHandle, Abortable, SelectAll};
use kontiki_storage::kv::{KvError, Revision, WatchMessage, WatchRequest};
use kontiki_storage::watch::ProgressHandle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::proto;
use super::proto::watch_server::Watch as WatchService;
use super::{Etcd, Reply, error};

mod request;
mod response;
mod source;

use request::{Create, Refusal};
use source::Source;

/// How many answers wait to be sent on one stream.
const ANSWERS: usize = 64;

/// How long there may be no leader before a stream that needs one ends.
const NO_LEADER_MAX: Duration = Duration::from_secs(3);

/// The watch identity of what concerns a whole stream, or none.
const NO_WATCH: i64 = -1;

type Answer = Result<proto::WatchResponse, Status>;

/// The client has gone.
struct Gone;

/// One watch of a stream.
struct Watch {
    create: Create,
    progress: ProgressHandle,
    stop: AbortHandle,
    /// Distinguishes the sources that a watch has had.
    serial: u64,
}

/// Progress of the whole stream, asked for by its client.
#[derive(Default)]
struct StreamProgress {
    /// How many answers are due.
    wanted: usize,
    /// Watches that have not said yet how far they are.
    awaited: BTreeSet<i64>,
    /// The least of what the others said.
    revision: Option<Revision>,
}

/// A stream with its watches.
struct Session {
    etcd: Etcd,
    answers: mpsc::Sender<Answer>,
    watches: BTreeMap<i64, Watch>,
    sources: SelectAll<Abortable<Source>>,
    next_id: i64,
    next_serial: u64,
    progress: StreamProgress,
}

#[tonic::async_trait]
impl WatchService for Etcd {
    type WatchStream = ReceiverStream<Answer>;

    async fn watch(
        &self,
        request: Request<Streaming<proto::WatchRequest>>,
    ) -> Reply<Self::WatchStream> {
        let needs_leader = request.metadata().get("hasleader").is_some_and(|value| value == "true");
        let (answers, stream) = mpsc::channel(ANSWERS);
        let session = Session {
            etcd: self.clone(),
            answers,
            watches: BTreeMap::new(),
            sources: SelectAll::new(),
            next_id: 0,
            next_serial: 0,
            progress: StreamProgress::default(),
        };
        tokio::spawn(session.run(request.into_inner(), needs_leader));
        Ok(ReceiverStream::new(stream).into())
    }
}

/// Ends once nobody has led for too long.
async fn leader_lost(etcd: &Etcd) {
    let mut leadership = etcd.node.leadership();
    loop {
        if leadership.wait_for(|now| now.leader.is_none()).await.is_err() {
            return;
        }
        let back = leadership.wait_for(|now| now.leader.is_some());
        if !matches!(tokio::time::timeout(NO_LEADER_MAX, back).await, Ok(Ok(_))) {
            return;
        }
    }
}

impl Session {
    async fn run(mut self, mut requests: Streaming<proto::WatchRequest>, needs_leader: bool) {
        let etcd = self.etcd.clone();
        let mut lost = std::pin::pin!(leader_lost(&etcd));
        let mut is_open = true;
        loop {
            // Cancel-safe: a request or message is either taken by its arm or still queued.
            let done = tokio::select! {
                () = etcd.token.cancelled() => return self.end(error::stopped()).await,
                () = self.answers.closed() => return,
                () = &mut lost, if needs_leader => return self.end(error::no_leader()).await,
                request = requests.next(), if is_open => match request {
                    Some(Ok(request)) => self.request(request).await,
                    Some(Err(_)) => return,
                    // The client only listens from now on.
                    None => {
                        is_open = false;
                        Ok(())
                    }
                },
                Some(said) = self.sources.next(), if !self.sources.is_empty() => {
                    self.said(said).await
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn end(self, status: Status) {
        let _ = self.answers.send(Err(status)).await;
    }

    async fn answer(&self, revision: Revision, answer: proto::WatchResponse) -> Result<(), Gone> {
        let answer = proto::WatchResponse { header: self.etcd.header(revision), ..answer };
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }

    async fn request(&mut self, request: proto::WatchRequest) -> Result<(), Gone> {
        use proto::watch_request::RequestUnion as R;
        match request.request_union {
            Some(R::CreateRequest(request)) => self.create(request).await,
            Some(R::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(R::ProgressRequest(_)) => self.request_progress().await,
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: proto::WatchCreateRequest) -> Result<(), Gone> {
        let now = self.etcd.kv.revision();
        let planned = Create::plan(request, now).and_then(|create| {
            let id = self.choose_id(create.id).ok_or(Refusal::DuplicateId)?;
            Ok(Create { id, ..create })
        });
        let create = match planned {
            Ok(create) => create,
            Err(refusal) => {
                let answer = proto::WatchResponse {
                    watch_id: NO_WATCH,
                    created: true,
                    canceled: true,
                    cancel_reason: refusal.to_string(),
                    ..proto::WatchResponse::default()
                };
                return self.answer(now, answer).await;
            }
        };
        let watch_id = create.id;
        let created = proto::WatchResponse { watch_id, created: true, ..Default::default() };
        self.answer(now, created).await?;
        if self.progress.wanted > 0 && create.start <= now {
            self.progress.awaited.insert(watch_id);
        }
        self.begin(create).await
    }

    /// The identity that was asked for, or the next one; none where it is taken.
    fn choose_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.watches.contains_key(&wanted)).then_some(wanted);
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    /// Begins a watch at the store, or begins it again where it was left off.
    async fn begin(&mut self, create: Create) -> Result<(), Gone> {
        let request = WatchRequest {
            range: create.range.clone(),
            start: Some(create.start),
            prev_kv: create.prev_kv,
        };
        let watcher = match self.etcd.kv.watch(request).await {
            Ok(watcher) => watcher,
            Err(error) => return self.failed(create.id, error).await,
        };
        let progress = watcher.progress();
        let (serial, id) = (self.next_serial, create.id);
        self.next_serial += 1;
        let (stop, stopped) = AbortHandle::new_pair();
        self.sources.push(Abortable::new(Source { id, serial, watcher }, stopped));
        if self.progress.awaited.contains(&id) {
            progress.request();
        }
        self.watches.insert(id, Watch { create, progress, stop, serial });
        Ok(())
    }

    fn forget(&mut self, id: i64) -> Option<Watch> {
        let watch = self.watches.remove(&id)?;
        watch.stop.abort();
        Some(watch)
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Gone> {
        if self.forget(id).is_none() {
            return Ok(());
        }
        let canceled = proto::WatchResponse { watch_id: id, canceled: true, ..Default::default() };
        self.answer(self.etcd.kv.revision(), canceled).await?;
        self.heard(id, None).await
    }

    /// A watcher has said something.
    async fn said(&mut self, said: source::Said) -> Result<(), Gone> {
        let source::Said { id, serial, message } = said;
        let Some(watch) = self.watches.get_mut(&id).filter(|watch| watch.serial == serial) else {
            return Ok(());
        };
        match message {
            Ok(WatchMessage::Events(events)) => {
                let Some(last) = events.last().map(|event| event.kv.mod_revision) else {
                    return Ok(());
                };
                watch.create.start = last.next();
                let answers = response::of_events(&watch.create, events);
                for answer in answers {
                    self.answer(last, answer).await?;
                }
                Ok(())
            }
            Ok(WatchMessage::Progress(revision)) => {
                watch.create.start = watch.create.start.max(revision.next());
                // As in etcd, progress that was asked for is told of the whole stream alone.
                let is_asked = self.progress.awaited.contains(&id);
                if watch.create.progress_notify && !is_asked {
                    let answer = proto::WatchResponse { watch_id: id, ..Default::default() };
                    self.answer(revision, answer).await?;
                }
                self.heard(id, Some(revision)).await
            }
            Err(error) => self.failed(id, error).await,
        }
    }

    /// A watch cannot go on as it did.
    async fn failed(&mut self, id: i64, error: KvError) -> Result<(), Gone> {
        let watch = self.forget(id);
        if let (KvError::SlowWatcher { .. }, Some(watch)) = (&error, watch) {
            // Its queue ran over while its client did not read: what it was not sent is in history.
            return Box::pin(self.begin(watch.create)).await;
        }
        let answer = proto::WatchResponse { watch_id: id, canceled: true, ..Default::default() };
        match error {
            KvError::Compacted { compacted, .. } => {
                let compact_revision = super::convert::signed(compacted.get());
                let answer = proto::WatchResponse { compact_revision, ..answer };
                // As in etcd, of no revision.
                self.answer(Revision::ZERO, answer).await?;
            }
            error => {
                let answer = proto::WatchResponse { cancel_reason: error.to_string(), ..answer };
                self.answer(self.etcd.kv.revision(), answer).await?;
            }
        }
        self.heard(id, None).await
    }

    async fn request_progress(&mut self) -> Result<(), Gone> {
        let now = self.etcd.kv.revision();
        self.progress.wanted += 1;
        if self.progress.wanted == 1 {
            // One that begins in the future has nothing to be sent before.
            let begun = self.watches.iter().filter(|(_, watch)| {
                let is_begun = watch.create.start <= now.next();
                if is_begun {
                    watch.progress.request();
                }
                is_begun
            });
            let awaited = begun.map(|(id, _)| *id).collect();
            self.progress.awaited = awaited;
            self.progress.revision = None;
        }
        self.answer_progress(now).await
    }

    /// A watch has told how far it is, or is no more.
    async fn heard(&mut self, id: i64, revision: Option<Revision>) -> Result<(), Gone> {
        let StreamProgress { awaited, revision: least, .. } = &mut self.progress;
        if !awaited.remove(&id) {
            return Ok(());
        }
        if let Some(revision) = revision {
            *least = Some(least.map_or(revision, |least| least.min(revision)));
        }
        self.answer_progress(self.etcd.kv.revision()).await
    }

    /// Answers a request for progress once all watches have told theirs; `otherwise` is how far
    /// the stream is where no watch has.
    async fn answer_progress(&mut self, otherwise: Revision) -> Result<(), Gone> {
        if !self.progress.awaited.is_empty() {
            return Ok(());
        }
        let StreamProgress { wanted, revision, .. } = std::mem::take(&mut self.progress);
        for _ in 0..wanted {
            let answer = proto::WatchResponse { watch_id: NO_WATCH, ..Default::default() };
            self.answer(revision.unwrap_or(otherwise), answer).await?;
        }
        Ok(())
    }
}
