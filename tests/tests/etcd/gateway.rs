//! The JSON gateways of both, request by request.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::side::Side;

const PATIENCE: Duration = Duration::from_secs(10);

/// How many lines a watch gives, which does not end by itself.
const WATCH_LINES: usize = 2;

/// What an answer looks like.
#[derive(Debug, PartialEq)]
struct Answer {
    status: String,
    kind: Option<String>,
    /// One for each line.
    values: Vec<Value>,
}

/// What is asked, in this order, and how many lines are read of the answer; none is all.
fn requests() -> Vec<(&'static str, Value, Option<usize>)> {
    let watch =
        |start: &str| json!({ "create_request": { "key": "Zm9v", "start_revision": start } });
    let compare = json!({ "key": "Zm9v", "target": "VALUE", "result": "EQUAL", "value": "YmFy" });
    let put = json!({ "request_put": { "key": "YQ==", "value": "Yg==" } });
    let range = json!({ "requestRange": { "key": "Zm9v" } });
    let whole = |path, body| (path, body, None);
    vec![
        whole("/v3/kv/put", json!({ "key": "Zm9v", "value": "YmFy" })),
        whole("/v3/kv/put", json!({ "key": "Zm9v", "value": "YmFy", "prev_kv": true })),
        whole("/v3/kv/range", json!({ "key": "Zm9v" })),
        whole("/v3/kv/range", json!({ "key": "Zm9v", "revision": "99999" })),
        whole(
            "/v3/kv/range",
            json!({ "key": "AA==", "range_end": "AA==", "sort_order": "DESCEND" }),
        ),
        whole("/v3/kv/range", json!({ "key": "AA==", "range_end": "AA==", "count_only": true })),
        whole("/v3/kv/range", json!({ "key": "Zm9v", "unknown": 1 })),
        whole("/v3/kv/range", json!({})),
        whole("/v3/kv/put", json!({ "key": "Zm9v", "lease": "77" })),
        whole("/v3/kv/put", json!({ "key": "Zm9v", "ignore_value": true, "value": "YQ==" })),
        whole("/v3/kv/txn", json!({ "compare": [compare], "success": [range, put] })),
        whole("/v3/kv/deleterange", json!({ "key": "YQ==", "prev_kv": true })),
        ("/v3/watch", watch("4"), Some(1)),
        whole("/v3/kv/compaction", json!({ "revision": "3", "physical": true })),
        whole("/v3/kv/compaction", json!({ "revision": "3" })),
        ("/v3/watch", watch("1"), Some(WATCH_LINES)),
        ("/v3/watch", watch("3"), Some(WATCH_LINES)),
        whole("/v3/lease/grant", json!({ "TTL": "600", "ID": "7" })),
        whole("/v3/lease/grant", json!({ "TTL": "600", "ID": 7 })),
        whole("/v3/lease/leases", json!({})),
        whole("/v3/kv/lease/leases", json!({})),
        whole("/v3/lease/keepalive", json!({ "ID": "7" })),
        whole("/v3/lease/revoke", json!({ "ID": "7" })),
        whole("/v3/cluster/member/remove", json!({ "ID": "12345" })),
        whole("/v3/maintenance/alarm", json!({ "action": "GET" })),
        whole("/v3/maintenance/defragment", json!({})),
        whole("/v3/auth/enable", json!({})),
        whole("/v3/election/leader", json!({ "name": "bm9uZQ==" })),
        whole("/v3/nothing", json!({})),
    ]
}

/// Compares the answers to all of them.
pub(crate) async fn run(ports: [u16; 2]) {
    let (etcd, kontiki) = tokio::join!(Side::etcd(ports), Side::kontiki());
    for (path, body, lines) in requests() {
        let body = body.to_string();
        let (theirs, ours) = tokio::join!(
            ask(etcd.address, "POST", path, &body, lines),
            ask(kontiki.address, "POST", path, &body, lines)
        );
        assert_eq!(ours, theirs, "{path} {body}");
    }
    for (verb, path) in [("GET", "/v3/kv/range"), ("GET", "/health")] {
        let (theirs, ours) = tokio::join!(
            ask(etcd.address, verb, path, "", None),
            ask(kontiki.address, verb, path, "", None)
        );
        assert_eq!(ours, theirs, "{verb} {path}");
    }
    let malformed = ask(kontiki.address, "POST", "/v3/kv/range", "{key", None).await;
    assert!(malformed.status.contains("400"), "{malformed:?}");
    assert_eq!(malformed.values[0]["code"], 3);
}

/// In the old version of the protocol, so that an answer ends with its connection.
async fn ask(
    address: SocketAddr,
    verb: &str,
    path: &str,
    body: &str,
    lines: Option<usize>,
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!("{verb} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let reading = async {
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            let so_far = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.lines().count());
            if read == 0 || lines.is_some_and(|lines| so_far >= lines && text.ends_with('\n')) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer must come in time");
    parse(&text)
}

fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").expect("there must be a head");
    let mut head = head.lines();
    let status = head.next().and_then(|line| line.split_once(' ')).unwrap().1.to_owned();
    let kind = head.find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
    });
    let value = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| json!(line));
    let mut values: Vec<Value> = body.lines().map(value).collect();
    values.iter_mut().for_each(forget_numbers);
    for value in &mut values {
        // Of events of the past etcd says at which revision it told them; we, up to which they go.
        let result = value.get_mut("result").filter(|result| result.get("events").is_some());
        if let Some(result) = result {
            result["header"]["revision"] = json!("some");
        }
    }
    Answer { status, kind, values }
}

/// The numbers that only one cluster has.
fn forget_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["cluster_id", "member_id", "raft_term"] {
                if let Some(number) = fields.get_mut(name) {
                    *number = json!("some");
                }
            }
            fields.values_mut().for_each(forget_numbers);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_numbers),
        _ => {}
    }
}
