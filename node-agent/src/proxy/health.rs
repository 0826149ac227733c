//! Health check node ports: a load balancer asks each node whether it has endpoints of a Service
//! whose clients must stay on the node they arrive at.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::index::Key;

/// Longest a balancer's connection may last: it asks once.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(5);
/// Connections of one port at the same time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 16;
/// Before a port that is taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What a port answers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    service: Key,
    endpoints: usize,
}

/// The ports that listen now. They close when this goes.
#[derive(Default)]
pub struct HealthPorts {
    ports: BTreeMap<Key, (u16, watch::Sender<Answer>)>,
    tasks: JoinSet<()>,
}

impl HealthPorts {
    /// What a Service's port shall answer; none for no port.
    pub fn apply(&mut self, service: &Key, wanted: Option<(u16, usize)>) {
        while self.tasks.try_join_next().is_some() {}
        let Some((port, endpoints)) = wanted else {
            self.ports.remove(service);
            return;
        };
        let answer = Answer { service: service.clone(), endpoints };
        match self.ports.get(service) {
            Some((known, sender)) if *known == port => {
                sender.send_replace(answer);
            }
            _ => {
                let (sender, receiver) = watch::channel(answer);
                self.tasks.spawn(listen(port, receiver));
                self.ports.insert(service.clone(), (port, sender));
            }
        }
    }
}

/// Serves a port until nobody tells what to answer any more.
async fn listen(port: u16, answer: watch::Receiver<Answer>) {
    let mut closed = answer.clone();
    let gone = async { while closed.changed().await.is_ok() {} };
    tokio::select! {
        () = gone => {}
        () = serve(port, answer) => {}
    }
}

async fn serve(port: u16, answer: watch::Receiver<Answer>) {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => tracing::warn!(port, %error, "a health check port cannot be opened"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let answer = answer.clone();
        connections.spawn(async move {
            let service = service_fn(move |_| {
                let response = response(&answer.borrow());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A balancer that goes away or stays silent is none of our trouble.
            let _ = tokio::time::timeout(CONNECTION_DEADLINE, connection).await;
        });
    }
}

fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let (namespace, name) = &answer.service;
    let body = json!({
        "service": { "namespace": namespace, "name": name },
        "localEndpoints": answer.endpoints,
        "serviceProxyHealthy": true,
    });
    let status =
        if answer.endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", header::HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", answer.endpoints.into());
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(port: u16) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    async fn until(port: u16, wanted: impl Fn(Option<&str>) -> bool) -> Option<String> {
        let asked = async {
            loop {
                let answer = ask(port).await;
                if wanted(answer.as_deref()) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.expect("it must come so")
    }

    #[tokio::test]
    async fn a_port_says_how_many_endpoints_there_are_and_closes_with_its_service() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let key = ("shop".to_owned(), "web".to_owned());
        let mut ports = HealthPorts::default();
        ports.apply(&key, Some((port, 2)));
        let text = until(port, |answer| answer.is_some()).await.unwrap();
        assert!(text.starts_with("HTTP/1.0 200"), "{text}");
        assert!(
            text.contains(r#""localEndpoints":2"#) && text.contains(r#""name":"web""#),
            "{text}"
        );
        ports.apply(&key, Some((port, 0)));
        until(port, |answer| answer.is_some_and(|text| text.starts_with("HTTP/1.0 503"))).await;
        ports.apply(&key, None);
        until(port, |answer| answer.is_none()).await;
    }
}
