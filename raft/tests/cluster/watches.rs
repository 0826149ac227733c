//! The etcd service `Watch`: many watches on one stream, at a follower.

use kontiki_raft::etcd::proto::kv_client::KvClient;
use kontiki_raft::etcd::proto::watch_client::WatchClient;
use kontiki_raft::etcd::proto::watch_request::RequestUnion;
use kontiki_raft::etcd::proto::{self, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::etcd::serve;
use super::harness::{Cluster, PATIENCE};

/// A stream of watches, with what puts beside it.
struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    kv: KvClient<Channel>,
}

impl Stream {
    async fn open(cluster: &Cluster) -> Self {
        let channel = Channel::from_shared(serve(cluster).await).unwrap().connect().await.unwrap();
        let (requests, stream) = mpsc::channel(16);
        let mut client = WatchClient::new(channel.clone());
        // The server answers with headers at once.
        let answers = client.watch(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { requests, answers, kv: KvClient::new(channel) }
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    async fn next(&mut self) -> WatchResponse {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        answer.expect("an answer is due").unwrap().expect("the stream is open")
    }

    async fn put(&mut self, key: &'static str, value: &'static str) -> i64 {
        let put = proto::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        self.kv.put(put).await.unwrap().into_inner().header.unwrap().revision
    }
}

fn prefix(key: &'static str, end: &'static str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), range_end: end.into(), ..Default::default() }
}

fn keys(answer: &WatchResponse) -> Vec<(String, i64)> {
    let key = |event: &proto::Event| {
        let kv = event.kv.clone().unwrap();
        (String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision)
    };
    answer.events.iter().map(key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watches_share_a_stream_and_each_is_told_what_it_asked_for() {
    let cluster = Cluster::of_three().await;
    let mut stream = Stream::open(&cluster).await;
    let first = stream.put("a/1", "x").await;
    let created = stream.create(WatchCreateRequest { start_revision: first, ..prefix("a", "b") });
    let created = created.await;
    assert!(created.created && !created.canceled);
    assert_eq!(
        (created.watch_id, keys(&stream.next().await)),
        (0, vec![("a/1".to_owned(), first)])
    );
    let deletes = WatchCreateRequest {
        filters: vec![proto::watch_create_request::FilterType::Noput as i32],
        prev_kv: true,
        watch_id: 9,
        ..prefix("a/2", "")
    };
    assert_eq!(stream.create(deletes.clone()).await.watch_id, 9);
    let twice = stream.create(deletes).await;
    assert_eq!((twice.watch_id, twice.created, twice.canceled), (-1, true, true));
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let put = stream.put("a/2", "y").await;
    assert_eq!(keys(&stream.next().await), [("a/2".to_owned(), put)]);
    let delete = proto::DeleteRangeRequest { key: "a/2".into(), ..Default::default() };
    stream.kv.delete_range(delete).await.unwrap();
    let mut both = [stream.next().await, stream.next().await];
    both.sort_by_key(|answer| answer.watch_id);
    assert_eq!([both[0].watch_id, both[1].watch_id], [0, 9]);
    assert!(both[0].events[0].prev_kv.is_none());
    assert_eq!(&both[1].events[0].prev_kv.as_ref().unwrap().value[..], b"y");
    stream.ask(RequestUnion::CancelRequest(proto::WatchCancelRequest { watch_id: 0 })).await;
    let canceled = stream.next().await;
    assert!(canceled.canceled && canceled.watch_id == 0 && canceled.compact_revision == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_of_a_stream_is_told_behind_all_that_happened_before() {
    let cluster = Cluster::of_three().await;
    let mut stream = Stream::open(&cluster).await;
    let progress = || RequestUnion::ProgressRequest(proto::WatchProgressRequest {});
    stream.ask(progress()).await;
    assert_eq!(stream.next().await.watch_id, -1);
    stream.create(prefix("a", "b")).await;
    stream.create(WatchCreateRequest { start_revision: 999, ..prefix("a", "b") }).await;
    let last = stream.put("a/1", "x").await;
    let elsewhere = stream.put("c", "x").await;
    assert_eq!(keys(&stream.next().await), [("a/1".to_owned(), last)]);
    // The member tells how far it is itself: behind the leader that took the write, for a moment.
    loop {
        stream.ask(progress()).await;
        let told = stream.next().await;
        assert_eq!((told.watch_id, told.events.len()), (-1, 0));
        let revision = told.header.unwrap().revision;
        assert!((last..=elsewhere).contains(&revision), "{revision}");
        if revision == elsewhere {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_that_was_asked_for_is_told_of_the_stream_and_not_of_each_watch() {
    const TIMES: usize = 5;
    let cluster = Cluster::of_three().await;
    let mut stream = Stream::open(&cluster).await;
    stream.create(WatchCreateRequest { progress_notify: true, ..prefix("a", "b") }).await;
    let mut told = Vec::new();
    while told.iter().filter(|id| **id == -1).count() < TIMES {
        stream.ask(RequestUnion::ProgressRequest(proto::WatchProgressRequest {})).await;
        told.push(stream.next().await.watch_id);
    }
    // By itself a watch tells now and then how far it is.
    assert!(told.len() < 2 * TIMES, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_before_the_compaction_is_created_and_cancelled_with_its_revision() {
    let cluster = Cluster::of_three().await;
    let mut stream = Stream::open(&cluster).await;
    stream.put("a", "1").await;
    let revision = stream.put("a", "2").await;
    let compaction = proto::CompactionRequest { revision, physical: true };
    stream.kv.compact(compaction).await.unwrap();
    // So that this member, a follower, has heard of it.
    let read = proto::RangeRequest { key: "a".into(), ..Default::default() };
    stream.kv.range(read).await.unwrap();
    let created = stream.create(WatchCreateRequest { start_revision: 1, ..prefix("a", "") }).await;
    assert!(created.created && !created.canceled);
    let canceled = stream.next().await;
    assert_eq!((canceled.canceled, canceled.compact_revision), (true, revision));
    let empty = stream.create(prefix("b", "a")).await;
    assert_eq!(empty.cancel_reason, "mvcc: watcher range is empty");
}

/// More than the store queues for a watcher: it is closed there, and goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_for_a_while_misses_nothing() {
    let cluster = Cluster::of_three().await;
    let mut stream = Stream::open(&cluster).await;
    stream.create(prefix("k", "l")).await;
    let mut last = 0;
    for _ in 0..40 {
        let ops = (0..100).map(|n| proto::RequestOp {
            request: Some(proto::request_op::Request::RequestPut(proto::PutRequest {
                key: format!("k{n}").into(),
                value: vec![b'v'; 1000].into(),
                ..Default::default()
            })),
        });
        let txn = proto::TxnRequest { success: ops.collect(), ..Default::default() };
        last = stream.kv.txn(txn).await.unwrap().into_inner().header.unwrap().revision;
    }
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, revision)| *revision < last) {
        seen.extend(keys(&stream.next().await));
    }
    assert_eq!(seen.len(), 4000);
    assert!(seen.is_sorted_by_key(|(_, revision)| *revision));
}
