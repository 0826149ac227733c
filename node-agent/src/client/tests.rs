//! Against small servers that answer, refuse, stay silent or freeze.

use std::sync::atomic::AtomicUsize;

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::*;

/// How long a client of these tests waits for the head of an answer.
const DEADLINE: Duration = Duration::from_millis(300);
/// Ping and wait for its answer.
const KEEP_ALIVE: Duration = Duration::from_millis(150);
/// Beyond this something hangs.
const AT_MOST: Duration = Duration::from_secs(20);

/// What a server does with a request.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers with this status.
    Status(u16),
    /// Answers with 200 after this time.
    Late(Duration),
    /// Never answers, but its connection lives.
    Silent,
}

struct Stub {
    url: String,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Stub {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn stub(manner: Manner) -> Stub {
    stub_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), manner)
}

fn stub_on(listener: TcpListener, manner: Manner) -> Stub {
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let counter = counter.clone();
            let service = service_fn(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
                answer(manner)
            });
            connections.spawn(async move {
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Stub { url, asked, task }
}

async fn answer(manner: Manner) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let status = match manner {
        Manner::Status(status) => status,
        Manner::Late(after) => {
            tokio::time::sleep(after).await;
            200
        }
        Manner::Silent => std::future::pending().await,
    };
    let mut response = Response::new(Full::from("{}"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn servers(urls: &[&str]) -> Servers {
    let identity = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = ClientTls {
        ca_pem: identity.cert.pem(),
        cert_pem: identity.cert.pem(),
        key_pem: identity.signing_key.serialize_pem(),
    };
    let timers = Timers { api_deadline: DEADLINE, api_keep_alive: KEEP_ALIVE, ..Timers::default() };
    let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
    Servers::new(&urls, &tls, &timers).unwrap()
}

async fn get(servers: &Servers, path: &str) -> Result<Response<Incoming>, ClientError> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    tokio::time::timeout(AT_MOST, servers.clone().oneshot(request)).await.expect("it must not hang")
}

async fn status(servers: &Servers) -> u16 {
    get(servers, "/version").await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_server_that_refuses_connections_costs_one_attempt() {
    let (nobody, alive) = (nobody().await, stub(Manner::Status(200)).await);
    let servers = servers(&[&nobody, &alive.url]);
    assert_eq!(status(&servers).await, 200);
    assert_eq!(servers.in_order()[0].1.authority().to_string(), alive.url[7..], "it stays there");
}

#[tokio::test]
async fn a_server_that_cannot_serve_now_is_passed_over() {
    for code in [502, 503, 504] {
        let (down, alive) = (stub(Manner::Status(code)).await, stub(Manner::Status(200)).await);
        let servers = servers(&[&down.url, &alive.url]);
        assert_eq!(status(&servers).await, 200, "{code}");
        assert_eq!(status(&servers).await, 200, "{code}");
        assert_eq!((down.asked(), alive.asked()), (1, 2), "{code}: asked once, then left alone");
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_no_reason_to_ask_another_server() {
    let (first, second) = (stub(Manner::Status(404)).await, stub(Manner::Status(200)).await);
    let servers = servers(&[&first.url, &second.url]);
    assert_eq!(status(&servers).await, 404);
    assert_eq!(second.asked(), 0);
}

#[tokio::test]
async fn a_silent_server_costs_one_deadline_and_only_once() {
    let (silent, alive) = (stub(Manner::Silent).await, stub(Manner::Status(200)).await);
    let servers = servers(&[&silent.url, &alive.url]);
    assert_eq!(status(&servers).await, 200);
    assert_eq!(status(&servers).await, 200);
    assert_eq!((silent.asked(), alive.asked()), (1, 2));
}

#[tokio::test]
async fn a_server_started_again_is_reached_on_a_new_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let first = stub_on(listener, Manner::Status(200));
    let servers = servers(&[&first.url]);
    assert_eq!(status(&servers).await, 200);
    first.task.abort();
    while !first.task.is_finished() {
        tokio::task::yield_now().await;
    }
    let second = stub_on(TcpListener::bind(address).await.unwrap(), Manner::Status(201));
    assert_eq!(status(&servers).await, 201);
    assert_eq!(second.asked(), 1);
}

#[tokio::test]
async fn with_every_server_gone_the_error_names_one_and_comes_soon() {
    let (one, two) = (nobody().await, nobody().await);
    let servers = servers(&[&one, &two]);
    let error = get(&servers, "/version").await.unwrap_err();
    assert!(error.to_string().contains(&two[7..]), "{error}");
}

#[tokio::test]
async fn a_quiet_watch_outlives_the_deadline_of_other_calls() {
    let late = stub(Manner::Late(DEADLINE * 4)).await;
    let servers = servers(&[&late.url]);
    let answer = get(&servers, "/api/v1/pods?&watch=true&timeoutSeconds=290").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(late.asked(), 1, "it was not given up and begun anew");
    let error = get(&servers, "/api/v1/pods").await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
}

#[tokio::test]
async fn a_watch_ends_in_time_at_a_server_that_does_not_end_it() {
    let silent = stub(Manner::Silent).await;
    let servers = servers(&[&silent.url]);
    let error = get(&servers, "/api/v1/pods?watch=1&timeoutSeconds=0").await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
}

type Line = http_body::Frame<Bytes>;

/// Shakes hands, gives a head and one line, then reads and writes nothing more while its
/// connection stays open: a server that was stopped, or a cable that was pulled.
async fn freezes() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let Ok((stream, _)) = listener.accept().await else { return };
        let service = service_fn(|_| async {
            let line = futures_util::stream::iter([Ok::<_, hyper::Error>(Line::data(
                Bytes::from("{}\n"),
            ))]);
            let line = futures_util::StreamExt::chain(line, futures_util::stream::pending());
            let body = StreamBody::new(line);
            Ok::<_, hyper::Error>(Response::new(body.boxed_unsync()))
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = Box::pin(connection);
        // Lives until the head is out, and is kept but not driven from then on.
        let _ = tokio::time::timeout(KEEP_ALIVE / 2, connection.as_mut()).await;
        std::future::pending::<()>().await;
        drop::<Pin<Box<_>>>(connection);
    });
    url
}

#[tokio::test]
async fn a_watch_at_a_frozen_server_breaks_off() {
    let frozen = freezes().await;
    let servers = servers(&[&frozen]);
    let mut body = get(&servers, "/api/v1/pods?watch=true").await.unwrap().into_body();
    let first: Line = body.frame().await.unwrap().unwrap();
    assert_eq!(first.data_ref().unwrap(), "{}\n");
    let next = tokio::time::timeout(AT_MOST, body.frame()).await.expect("it must break off");
    assert!(next.is_none_or(|frame| frame.is_err()));
}

#[tokio::test]
async fn a_server_is_learnt_once_and_a_wrong_address_named() {
    let servers = servers(&["https://127.0.0.1:1"]);
    assert!(servers.learn("https://127.0.0.1:2").unwrap());
    assert!(!servers.learn("https://127.0.0.1:2/").unwrap());
    assert_eq!(servers.known(), ["127.0.0.1:1", "127.0.0.1:2"]);
    let error = servers.learn("ftp://x").unwrap_err();
    assert!(error.to_string().contains("ftp://x"), "{error}");
}
