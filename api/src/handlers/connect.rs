//! exec, attach and port-forward: the connection is led to the node's agent and its bytes passed on
//! as they come, whatever protocol the two ends agreed on.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{Call, log};
use crate::admission::{Admit, Operation};
use crate::answer;
use crate::authz::Attributes;
use crate::context::RequestContext;
use crate::kubelet::{Answer, Upgrade};
use crate::object::Object;
use crate::query::Query;
use crate::state::Api;
use crate::status::Status;

/// How long a client may take to be ready for its stream once it was told that it has it.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);

/// Of what nodes say when they refuse.
const TEXT: &str = "text/plain; charset=utf-8";

/// Headers of a handshake that are the two ends' business.
const PASSED_ON: [HeaderName; 6] = [
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_ACCEPT,
    HeaderName::from_static("x-stream-protocol-version"),
];

/// Connects a client with the process or the port it asks for.
pub(super) async fn connect(call: Call) -> Result<Response, Status> {
    let Call { api, ctx, kind, path, query, headers, upgrade, .. } = call;
    also_create(&api, &ctx).await?;
    let mut options = options(&path.subresource, &query);
    let admit = Admit {
        ctx: &ctx,
        registry: &api.registry,
        kind,
        subresource: &path.subresource,
        operation: Operation::Connect,
        namespace: &path.namespace,
        name: &path.name,
        old: None,
    };
    api.registry.admission().document(&admit, &mut options).await?;
    let client = upgrade.filter(|_| headers.contains_key(header::UPGRADE));
    let client = client.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let pod = api.registry.get(&ctx, kind, &path.namespace, &path.name).await?;
    let target = Target::of(&path.subresource, &pod, &query)?;
    let node = pod.str_at("/spec/nodeName");
    if node.is_empty() {
        let name = &path.name;
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let kubelet = api
        .kubelet
        .as_ref()
        .ok_or_else(|| Status::unavailable("this server has no identity for calls to nodes"))?;
    let place = Arc::clone(&api.streams)
        .try_acquire_owned()
        .map_err(|_| Status::too_many_requests("Too many streams, please try again later.", 1))?;
    let nodes = api.registry.scheme().kind("", "v1", "Node").ok_or_else(Status::no_such_path)?;
    let node = api.registry.get(&ctx, nodes, "", node).await?;
    let mut segments = vec![target.verb, &path.namespace, &path.name];
    segments.extend(target.container.as_deref());
    let pairs: Vec<(&str, &str)> =
        target.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let asked = kubelet
        .upgrade(&node, &segments, &pairs, handshake(&headers), api.config.request_timeout)
        .await?;
    let upgrade = match asked {
        Answer::Upgraded(upgrade) => upgrade,
        Answer::Refused { code, text } => return Ok(answer::bytes(code, TEXT, text)),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = handshake(&upgrade.headers);
    // Ends with either of its two connections, or with the server.
    tokio::spawn(pass_on(client, upgrade, api.stop.clone(), place));
    Ok(response)
}

/// What a client asks for, as a document.
fn options(subresource: &str, query: &Query) -> Object {
    let kind = match subresource {
        "exec" => "PodExecOptions",
        "attach" => "PodAttachOptions",
        _ => "PodPortForwardOptions",
    };
    let mut options = Object::empty("v1", kind);
    options.remove(&["metadata"]);
    if kind == "PodPortForwardOptions" {
        let ports = query.all("ports").into_iter().filter_map(|port| port.parse::<i64>().ok());
        options.set(&["ports"], ports.collect::<Vec<_>>());
        return options;
    }
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if query.is_true(flag) {
            options.set(&[flag], true);
        }
    }
    if !query.get("container").is_empty() {
        options.set(&["container"], query.get("container"));
    }
    if kind == "PodExecOptions" {
        let command: Vec<&str> = query.all("command");
        options.set(&["command"], command);
    }
    options
}

/// Who opens a WebSocket does it by GET, and must be allowed what other clients do by POST.
pub(super) async fn also_create(api: &Api, ctx: &RequestContext) -> Result<(), Status> {
    let Attributes::Resource(asked) = ctx.attributes() else { return Ok(()) };
    if asked.verb == "create" {
        return Ok(());
    }
    let mut attributes = asked.clone();
    attributes.verb = Cow::Borrowed("create");
    let (user, attributes) = (ctx.shared_user(), Attributes::Resource(attributes));
    RequestContext::authorize_latest(&*api.authorizer, user, attributes).await.map(drop)
}

/// What of a handshake is passed on.
fn handshake(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in PASSED_ON {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    kept
}

/// Passes bytes both ways until one end, or the server, ends.
pub(crate) async fn pass_on(
    client: OnUpgrade,
    node: Upgrade,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let Ok(Ok(client)) = tokio::time::timeout(UPGRADE_TIMEOUT, client).await else { return };
    let (mut client, mut node) = (TokioIo::new(client), node.stream);
    tokio::select! {
        ended = tokio::io::copy_bidirectional(&mut client, &mut node) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a stream broke off");
            }
        }
        () = stop.cancelled() => {}
    }
}

/// What the node's agent is asked for.
struct Target {
    verb: &'static str,
    container: Option<String>,
    query: Vec<(&'static str, String)>,
}

impl Target {
    fn of(subresource: &str, pod: &Object, query: &Query) -> Result<Self, Status> {
        if subresource == "portforward" {
            let ports = query.all("ports").into_iter().map(|port| ("port", port.to_owned()));
            return Ok(Self { verb: "portForward", container: None, query: ports.collect() });
        }
        let is_exec = subresource == "exec";
        let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
        let mut asked: Vec<(&str, String)> = flags
            .into_iter()
            .filter(|(name, _)| query.is_true(name))
            .map(|(_, name)| (name, "1".to_owned()))
            .collect();
        let commands = query.all("command").into_iter().filter(|_| is_exec);
        asked.extend(commands.map(|word| ("command", word.to_owned())));
        Ok(Self {
            verb: if is_exec { "exec" } else { "attach" },
            container: Some(log::container(pod, query.get("container"))?),
            query: asked,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(subresource: &str, query: &str) -> Result<String, Status> {
        let uri: http::Uri = format!("/?{query}").parse().expect("a valid uri");
        let pod =
            json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c" }] } });
        let target =
            Target::of(subresource, &Object::new(pod).expect("an object"), &Query::of(&uri))?;
        let pairs: Vec<_> =
            target.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(format!("{} {:?} {}", target.verb, target.container, pairs.join("&")))
    }

    #[test]
    fn what_a_client_asks_is_put_as_nodes_know_it() {
        assert_eq!(
            target("exec", "command=sh&command=-c&stdin=true&stdout=1&tty=false").expect("good"),
            "exec Some(\"c\") input=1&output=1&command=sh&command=-c"
        );
        assert_eq!(target("attach", "stderr=true").expect("good"), "attach Some(\"c\") error=1");
        assert_eq!(target("portforward", "ports=80").expect("good"), "portForward None port=80");
    }

    #[test]
    fn what_cannot_be_is_refused_in_the_api_s_words() {
        let of = |name: &str| format!("command=sh&stdout=true&container={name}");
        assert!(target("exec", &of("c")).is_ok());
        let refusal = target("exec", &of("x")).expect_err("it must be refused");
        assert_eq!(refusal.code(), 400);
        assert_eq!(refusal.message(), "container x is not valid for pod p");
    }
}
