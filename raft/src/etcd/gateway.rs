//! The JSON gateway: etcd's calls over plain HTTP, as grpc-gateway makes them of etcd's protocol.
//!
//! ```text
//!  POST /v3/kv/range {"key":"Zm9v"} ──▶ json ──▶ frames ──▶ etcdserverpb.KV/Range, in this process
//!  {"header":{…},"kvs":[…]}         ◀── json ◀── frames ◀──────────┘
//! ```
//!
//! Bytes are in base64, 64-bit integers are strings, fields have the names of the protocol, and what
//! is zero is left out. A stream of answers has one `{"result":…}` a line. Messages are read and
//! written by the descriptors that were compiled in, so that every call there is, is here.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method as Verb, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use super::{MESSAGE_BYTES_MAX, metrics, proto};
use crate::node::Node;

mod frames;
mod json;
mod paths;
mod refusal;

use frames::Answers;

/// How large the text of a request may be: bytes grow by a third in base64.
const TEXT_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// How many messages there are, of requests or of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    One,
    Any,
}

impl Count {
    fn of_stream(is_stream: bool) -> Self {
        if is_stream { Self::Any } else { Self::One }
    }
}

/// A call that can be made.
#[derive(Debug, Clone)]
struct Call {
    /// Where gRPC has it.
    path: String,
    input: MessageDescriptor,
    output: MessageDescriptor,
    requests: Count,
    answers: Count,
}

/// All of them, by path.
pub(super) struct Gateway {
    routes: Routes,
    calls: BTreeMap<String, Call>,
    /// For what is asked for without a call.
    node: Node,
}

impl Gateway {
    /// A gateway to the services of `routes`.
    pub(super) fn to(routes: Routes, node: Node) -> Self {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS)
            .expect("the descriptors that were compiled in must be readable");
        let calls = paths::ALL.iter().map(|(path, service, method)| {
            let service = pool.get_service_by_name(service).expect("the service must be there");
            let method = service.methods().find(|one| one.name() == *method);
            let method = method.expect("the method must be there");
            let call = Call {
                path: format!("/{}/{}", service.full_name(), method.name()),
                input: method.input(),
                output: method.output(),
                requests: Count::of_stream(method.is_client_streaming()),
                answers: Count::of_stream(method.is_server_streaming()),
            };
            (format!("/v3/{path}"), call)
        });
        Self { calls: calls.collect(), routes, node }
    }

    /// Answers a request that is not gRPC.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        match self.calls.get(path) {
            None if request.method() == Verb::GET => plain(path, &self.node).await,
            Some(call) if request.method() == Verb::POST => {
                let made = self.make(call.clone(), request.into_body()).await;
                made.unwrap_or_else(|status| refusal::of(&status))
            }
            Some(_) => refusal::text(StatusCode::METHOD_NOT_ALLOWED),
            None => refusal::text(StatusCode::NOT_FOUND),
        }
    }

    async fn make(&self, call: Call, body: Incoming) -> Result<Response<Body>, Status> {
        let text = Limited::new(body, TEXT_BYTES_MAX).collect().await;
        let text = text.map_err(|error| Status::invalid_argument(error.to_string()))?.to_bytes();
        let requests = json::read(&call.input, &text, call.requests)?;
        let mut answers = self.send(&call, requests).await?;
        if call.answers == Count::Any {
            return Ok(line_by_line(call.output, answers));
        }
        let message = answers.next().await?;
        let message = message.ok_or_else(|| Status::internal("the call has no answer"))?;
        answers.end().await?;
        Ok(whole(StatusCode::OK, json::write(&call.output, message)?.into()))
    }

    async fn send(&self, call: &Call, requests: Vec<Bytes>) -> Result<Answers, Status> {
        let request = Request::post(&call.path)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::new(frames::of(&requests)))
            .map_err(|error| Status::internal(error.to_string()))?;
        let answered = self.routes.clone().call(request).await;
        let response = answered.unwrap_or_else(|never: Infallible| match never {});
        Answers::of(response)
    }
}

/// What is asked for without a call.
async fn plain(path: &str, node: &Node) -> Response<Body> {
    match path {
        "/metrics" => {
            let node = node.clone();
            let page = tokio::task::spawn_blocking(move || metrics::page(&node)).await;
            match page {
                Ok(page) => refusal::plain(StatusCode::OK, page),
                Err(_) => refusal::text(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
        "/health" => refusal::plain(StatusCode::OK, r#"{"health":"true"}"#.to_owned()),
        "/version" => {
            let version = super::API_VERSION;
            let text = format!(r#"{{"etcdserver":"{version}","etcdcluster":"{version}"}}"#);
            whole(StatusCode::OK, text.into())
        }
        _ => refusal::text(StatusCode::NOT_FOUND),
    }
}

/// A whole answer.
fn whole(code: StatusCode, text: Bytes) -> Response<Body> {
    with(code, Body::new(Full::new(text)))
}

fn with(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// One answer a line, until the stream ends; a refusal is the last line.
fn line_by_line(output: MessageDescriptor, answers: Answers) -> Response<Body> {
    let lines = stream::unfold(Some((output, answers)), |state| async move {
        let (output, mut answers) = state?;
        let text = match answers.next().await {
            Ok(Some(message)) => json::write(&output, message),
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        let (line, rest) = match text {
            Ok(text) => (format!("{{\"result\":{text}}}\n"), Some((output, answers))),
            Err(status) => (refusal::line(&status), None),
        };
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), rest))
    });
    with(StatusCode::OK, Body::new(StreamBody::new(Box::pin(lines))))
}
