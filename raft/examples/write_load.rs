//! Measures replicated durable writes: three members in this process, each on a runtime of its own,
//! over loopback and on disk; 1 KiB puts by as many concurrent writers as the first argument says
//! (64), for as many seconds as the second says (10). Build it with `--release`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kontiki_raft::config::{Blocking, LogPolicy, NodeConfig, Timers};
use kontiki_raft::node::Node;
use kontiki_raft::types::{Member, NodeId};
use kontiki_storage::engine::disk::DiskEngine;
use kontiki_storage::kv::{Op, Txn};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const VALUE_BYTES: usize = 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn runtime() -> Result<Runtime, std::io::Error> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

async fn start(id: NodeId, listener: TcpListener, directory: &Path) -> Result<Node, Failure> {
    let engine = Arc::new(DiskEngine::open(&directory.join(id.to_string()))?);
    let member = member(id, &listener)?;
    let node = Node::start(NodeConfig {
        node_id: id,
        cluster_id: "load".to_owned(),
        member,
        engine,
        peer_source: None,
        tls: None,
        timers: Timers::default(),
        log: LogPolicy::default(),
        blocking: Blocking::Threads,
    })
    .await?;
    let serving = node.clone();
    tokio::spawn(async move { serving.serve(listener, CancellationToken::new()).await });
    Ok(node)
}

fn member(id: NodeId, listener: &TcpListener) -> Result<Member, std::io::Error> {
    let raft_addr = listener.local_addr()?.to_string();
    Ok(Member { name: format!("server-{id}"), raft_addr, ..Member::default() })
}

/// Writes until `end`; how long each write took.
async fn write(node: Node, writer: usize, end: Instant) -> Result<Vec<Duration>, Failure> {
    let kv = node.kv();
    let value = vec![u8::try_from(writer % 251)?; VALUE_BYTES];
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let key = format!("load/{writer}/{}", latencies.len() % 1000);
        let txn = Txn { success: vec![Op::put(key, value.clone())], ..Txn::default() };
        let begin = Instant::now();
        kv.txn(txn.into()).await?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let writers: usize = arguments.next().map_or(Ok(64), |count| count.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(10), |count| count.parse())?;
    let directory = tempfile::tempdir()?;
    let runtimes = [runtime()?, runtime()?, runtime()?];
    let mut nodes = Vec::new();
    let mut members = BTreeMap::new();
    for (id, runtime) in (1..).zip(&runtimes) {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        members.insert(id, member(id, &listener)?);
        nodes.push(runtime.block_on(start(id, listener, directory.path()))?);
    }
    runtimes[0].block_on(nodes[0].bootstrap(members))?;
    let mut leadership = nodes[0].leadership();
    let leader = runtimes[0].block_on(leadership.wait_for(|now| now.leader.is_some()))?.leader;
    let place = usize::try_from(leader.unwrap_or(1))? - 1;
    let end = Instant::now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| runtimes[place].spawn(write(nodes[place].clone(), writer, end)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(runtimes[place].block_on(task)??);
    }
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "{writers} writers: {} puts/s, p50 {:?}, p99 {:?}",
        latencies.len() as u64 / seconds,
        at(50),
        at(99)
    );
    for (node, runtime) in nodes.iter().zip(&runtimes) {
        runtime.block_on(node.stop());
    }
    Ok(())
}
