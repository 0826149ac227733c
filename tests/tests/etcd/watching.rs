//! Many watches on one stream, and what each was told.

use std::collections::BTreeMap;
use std::time::Duration;

use kontiki_raft::etcd::proto;
use proto::watch_client::WatchClient;
use proto::watch_request::RequestUnion;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::answer::header;

/// How many requests wait to be sent.
const REQUESTS: usize = 16;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The watch identity of what concerns the whole stream, or no watch.
const NO_WATCH: i64 = -1;

/// One thing that a watch was told: how events are gathered into messages does not matter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    Event(proto::Event),
    Other(proto::WatchResponse),
}

/// What was told on a stream.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) by_watch: BTreeMap<i64, Vec<Told>>,
    /// Answers to what was to be created, in order.
    created: Vec<proto::WatchResponse>,
}

impl Log {
    fn add(&mut self, mut answer: proto::WatchResponse) {
        // How often watches tell of their progress by themselves is a setting, in etcd too.
        let says_nothing = proto::WatchResponse {
            header: answer.header,
            watch_id: answer.watch_id,
            ..Default::default()
        };
        if answer.watch_id != NO_WATCH && answer == says_nothing {
            return;
        }
        header(&mut answer.header);
        if answer.created {
            self.created.push(answer.clone());
        }
        let told = self.by_watch.entry(answer.watch_id).or_default();
        let events = std::mem::take(&mut answer.events);
        if events.is_empty() {
            told.push(Told::Other(answer));
        }
        told.extend(events.into_iter().map(Told::Event));
    }

    fn has_ended(&self, watch: i64) -> bool {
        let told = self.by_watch.get(&watch).into_iter().flatten();
        told.into_iter().any(|told| matches!(told, Told::Other(other) if other.canceled))
    }

    fn events(&self, watch: i64) -> usize {
        let told = self.by_watch.get(&watch).into_iter().flatten();
        told.filter(|told| matches!(told, Told::Event(_))).count()
    }
}

/// One stream of watches.
pub(crate) struct Watching {
    requests: mpsc::Sender<proto::WatchRequest>,
    log: watch::Receiver<Log>,
}

impl Watching {
    pub(crate) fn open(channel: Channel) -> Self {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (sender, log) = watch::channel(Log::default());
        tokio::spawn(async move {
            // etcd says nothing, not even that there is a stream, before the first request.
            let answers = client.watch(ReceiverStream::new(queue)).await;
            let mut answers = answers.expect("there must be a stream").into_inner();
            while let Ok(Some(answer)) = answers.message().await {
                sender.send_modify(|log| log.add(answer));
            }
        });
        Self { requests, log }
    }

    async fn send(&self, request: RequestUnion) {
        let request = proto::WatchRequest { request_union: Some(request) };
        self.requests.send(request).await.expect("the stream must be open");
    }

    /// Waits until what was told is as it should be.
    async fn wait(&self, what: &str, is_so: impl FnMut(&Log) -> bool) {
        let mut log = self.log.clone();
        let mut is_so = is_so;
        let told = tokio::time::timeout(PATIENCE, log.wait_for(|log| is_so(log))).await;
        let Ok(told) = told else { panic!("not in time: {what}") };
        assert!(told.is_ok(), "the stream ended before {what}");
    }

    /// Creates a watch; returns the answer.
    pub(crate) async fn create(&self, request: proto::WatchCreateRequest) -> proto::WatchResponse {
        let before = self.log.borrow().created.len();
        self.send(RequestUnion::CreateRequest(request)).await;
        self.wait("a watch is created or refused", |log| log.created.len() > before).await;
        self.log.borrow().created[before].clone()
    }

    /// Ends a watch and waits until it has ended.
    pub(crate) async fn cancel(&self, watch_id: i64) {
        let request = proto::WatchCancelRequest { watch_id };
        self.send(RequestUnion::CancelRequest(request)).await;
        self.wait("a watch ends", |log| log.has_ended(watch_id)).await;
    }

    /// Waits until a watch was told an event.
    pub(crate) async fn told_event(&self, watch: i64) {
        self.wait("a watch is told an event", |log| log.events(watch) > 0).await;
    }

    /// Asks how far the stream is and waits for the answer.
    pub(crate) async fn progress(&self) {
        let count = |log: &Log| log.by_watch.get(&NO_WATCH).map_or(0, Vec::len);
        let before = count(&self.log.borrow());
        self.send(RequestUnion::ProgressRequest(proto::WatchProgressRequest {})).await;
        self.wait("the stream tells its progress", |log| count(log) > before).await;
    }

    /// Whether a watch has ended.
    pub(crate) fn has_ended(&self, watch: i64) -> bool {
        self.log.borrow().has_ended(watch)
    }

    /// Waits until both streams were told the same, or gives the first difference of a watch.
    pub(crate) async fn equal(&self, other: &Self) -> Result<(), String> {
        let (mut ours, mut theirs) = (self.log.clone(), other.log.clone());
        let waiting = async {
            while ours.borrow_and_update().by_watch != theirs.borrow_and_update().by_watch {
                tokio::select! {
                    changed = ours.changed() => changed.expect("the stream must be open"),
                    changed = theirs.changed() => changed.expect("the stream must be open"),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => Err(difference(&self.log.borrow(), &other.log.borrow())),
        }
    }
}

fn difference(left: &Log, right: &Log) -> String {
    let ids = left.by_watch.keys().chain(right.by_watch.keys());
    for id in ids {
        let empty = Vec::new();
        let (left, right) =
            (left.by_watch.get(id).unwrap_or(&empty), right.by_watch.get(id).unwrap_or(&empty));
        let at = left.iter().zip(right).take_while(|(left, right)| left == right).count();
        if left != right {
            let (left, right) = (left.get(at), right.get(at));
            return format!("watch {id}, from {at} on: {left:#?}\nagainst {right:#?}");
        }
    }
    "none any more".to_owned()
}
