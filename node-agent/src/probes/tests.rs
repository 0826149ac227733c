use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::runtime::fake::FakeRuntime;

fn probe(value: &serde_json::Value) -> Probe {
    serde_json::from_value(value.clone()).unwrap()
}

fn target(probe: Probe) -> Target {
    Target {
        runtime: Arc::new(FakeRuntime::default()),
        container_id: "id".into(),
        container: serde_json::from_value(json!({
            "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }],
        }))
        .unwrap(),
        started_at: Timestamp::now(),
        ip: "127.0.0.1".parse().unwrap(),
        question: Question::Readiness,
        probe,
    }
}

/// A server that answers every connection with `answer`.
async fn answering(answer: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[test]
fn a_verdict_needs_enough_probes_in_a_row() {
    let probe = probe(&json!({ "successThreshold": 2, "failureThreshold": 3 }));
    let mut tally = Tally::default();
    let outcomes = [true, true, true, false, false, true, false, false, false, false];
    let verdicts: Vec<_> = outcomes.map(|good| tally.count(good, &probe)).into();
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(verdicts, [None, yes, yes, None, None, None, None, None, no, no]);
}

#[tokio::test]
async fn http_statuses_below_400_are_good() {
    for (answer, good) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", false),
    ] {
        let port = answering(answer).await;
        let target = target(probe(&json!({ "httpGet": { "path": "/x", "port": port } })));
        assert_eq!(target.ask(Duration::from_secs(5)).await.is_ok(), good, "{answer}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_told_in_known_words() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let http = target(probe(&json!({ "httpGet": { "port": port } })));
    let error = http.ask(Duration::from_secs(5)).await.unwrap_err();
    assert!(error.contains("connect: connection refused"), "{error}");
    let tcp = target(probe(&json!({ "tcpSocket": { "port": port } })));
    assert!(tcp.ask(Duration::from_secs(5)).await.unwrap_err().starts_with("dial tcp 127.0.0.1:"));
}

#[tokio::test]
async fn a_server_that_says_nothing_runs_into_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = target(probe(&json!({ "httpGet": { "port": port } })));
    let error = target.ask(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error, "context deadline exceeded");
}

#[test]
fn ports_are_found_by_name_and_number() {
    let container = target(Probe::default()).container;
    let port = |port: IntOrString| resolve_port(&container, &port);
    assert_eq!(port(IntOrString::Int(80)), Ok(80));
    assert_eq!(port(IntOrString::String("web".into())), Ok(8080));
    assert_eq!(port(IntOrString::String("81".into())), Ok(81));
    assert!(port(IntOrString::String("none".into())).is_err());
}
