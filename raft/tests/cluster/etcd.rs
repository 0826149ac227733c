//! Debian's `etcdctl` against a cluster, through the etcd API of a follower.

use std::process::Output;

use kontiki_raft::etcd;
use kontiki_raft::etcd::proto;
use kontiki_raft::etcd::proto::kv_client::KvClient;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::harness::Cluster;

/// Serves the etcd API of some follower; returns where.
pub(super) async fn serve(cluster: &Cluster) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let node = cluster.node(cluster.follower().await).clone();
    tokio::spawn(etcd::serve(node, listener, None, CancellationToken::new()));
    endpoint
}

async fn run(endpoint: &str, arguments: &[&str], input: &str) -> Output {
    use tokio::io::AsyncWriteExt as _;
    let mut child = tokio::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoint])
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("etcdctl must be installed (Debian package etcd-client)");
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    child.wait_with_output().await.unwrap()
}

async fn etcdctl(endpoint: &str, arguments: &[&str], input: &str) -> String {
    let output = run(endpoint, arguments, input).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{error}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_puts_gets_deletes_compares_and_asks_for_members() {
    let cluster = Cluster::of_three().await;
    // Without its scheme: `endpoint status` sends what it is given as the authority, and HTTP/2
    // libraries other than Go's refuse one with a scheme.
    let endpoint = serve(&cluster).await.replace("http://", "");
    assert_eq!(etcdctl(&endpoint, &["put", "a", "1"], "").await, "OK\n");
    assert_eq!(etcdctl(&endpoint, &["put", "b", "2"], "").await, "OK\n");
    assert_eq!(etcdctl(&endpoint, &["get", "a"], "").await, "a\n1\n");
    let all = etcdctl(&endpoint, &["get", "--prefix", "", "--order=DESCEND"], "").await;
    assert_eq!(all, "b\n2\na\n1\n");
    let txn = "value(\"a\") = \"1\"\n\nput c 3\nget b\n\nput d 4\n\n";
    let done = etcdctl(&endpoint, &["txn"], txn).await;
    assert!(done.starts_with("SUCCESS") && done.contains("b\n2"), "{done}");
    assert_eq!(etcdctl(&endpoint, &["get", "c", "--print-value-only"], "").await, "3\n");
    assert_eq!(etcdctl(&endpoint, &["del", "a"], "").await, "1\n");
    assert_eq!(etcdctl(&endpoint, &["get", "a"], "").await, "");
    let members = etcdctl(&endpoint, &["member", "list"], "").await;
    assert_eq!(members.lines().filter(|line| line.contains("server-")).count(), 3, "{members}");
    let status = etcdctl(&endpoint, &["endpoint", "status"], "").await;
    assert!(status.contains("3.5.0"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_without_its_key_and_its_lease_is_refused_for_the_lease_and_in_a_txn_for_the_key() {
    let cluster = Cluster::of_three().await;
    let mut client = KvClient::connect(serve(&cluster).await).await.unwrap();
    let put = proto::PutRequest {
        key: "absent".into(),
        lease: 7,
        ignore_value: true,
        ..Default::default()
    };
    let alone = client.put(put.clone()).await.unwrap_err();
    assert_eq!(alone.code(), Code::NotFound);
    assert_eq!(alone.message(), "etcdserver: requested lease not found");
    let put = proto::request_op::Request::RequestPut(put);
    let success = vec![proto::RequestOp { request: Some(put) }];
    let txn = proto::TxnRequest { success, ..Default::default() };
    let within = client.txn(txn).await.unwrap_err();
    assert_eq!(within.code(), Code::InvalidArgument);
    assert_eq!(within.message(), "etcdserver: key not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_texts_and_codes_of_etcd() {
    let cluster = Cluster::of_three().await;
    let endpoint = serve(&cluster).await;
    let mut client = KvClient::connect(endpoint).await.unwrap();
    let mut revision = 0;
    for value in ["1", "2", "3"] {
        let put = proto::PutRequest { key: "a".into(), value: value.into(), ..Default::default() };
        let header = client.put(put).await.unwrap().into_inner().header.unwrap();
        assert!(header.revision > revision && header.raft_term > 0 && header.member_id > 0);
        revision = header.revision;
    }
    let compaction = proto::CompactionRequest { revision, physical: false };
    client.compact(compaction).await.unwrap();
    let at = |revision| proto::RangeRequest { key: "a".into(), revision, ..Default::default() };
    let compacted = client.range(at(revision - 1)).await.unwrap_err();
    assert_eq!(compacted.code(), Code::OutOfRange);
    assert_eq!(compacted.message(), "etcdserver: mvcc: required revision has been compacted");
    let future = client.range(at(revision + 9)).await.unwrap_err();
    assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
    let empty = client.put(proto::PutRequest::default()).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    assert_eq!(empty.message(), "etcdserver: key is not provided");
    let twice = proto::RequestOp {
        request: Some(proto::request_op::Request::RequestPut(proto::PutRequest {
            key: "k".into(),
            ..Default::default()
        })),
    };
    let txn = proto::TxnRequest { success: vec![twice.clone(), twice], ..Default::default() };
    let duplicate = client.txn(txn).await.unwrap_err();
    assert_eq!(duplicate.message(), "etcdserver: duplicate key given in txn request");
}
