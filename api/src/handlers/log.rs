//! GET of a pod's log: fetched from the node's agent and passed on as it comes, also over a WebSocket.

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::StatusCode;
use serde_json::Value;

use super::{Call, socket};
use crate::answer;
use crate::object::Object;
use crate::query::Query;
use crate::status::{FieldError, Status};

/// The parameters that the agent is told.
const PASSED_ON: [&str; 8] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
];

const TEXT: &str = "text/plain";

pub(super) async fn log(call: Call) -> Result<Response, Status> {
    let Call { api, ctx, kind, path, query, headers, upgrade, .. } = call;
    check(&query, &path.name)?;
    let pod = api.registry.get(&ctx, kind, &path.namespace, &path.name).await?;
    let container = container(&pod, query.get("container"))?;
    let node = pod.str_at("/spec/nodeName");
    if node.is_empty() {
        // As upstream: a pod without a node has printed nothing.
        return Ok(answer::bytes(StatusCode::OK, TEXT, Vec::new()));
    }
    let kubelet = api
        .kubelet
        .as_ref()
        .ok_or_else(|| Status::unavailable("this server has no identity for calls to nodes"))?;
    let nodes = api.registry.scheme().kind("", "v1", "Node").ok_or_else(Status::no_such_path)?;
    let node = api.registry.get(&ctx, nodes, "", node).await?;
    let segments = ["containerLogs", &path.namespace, &path.name, &container];
    let pairs: Vec<(&str, &str)> = query
        .pairs()
        .iter()
        .filter(|(name, _)| PASSED_ON.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let content = kubelet.get(&node, &segments, &pairs, api.config.request_timeout).await?;
    let content = content.take_until(api.stop.clone().cancelled_owned());
    if let Some(client) = upgrade.filter(|_| socket::is_wanted(&headers)) {
        return socket::stream(&api, client, &headers, content);
    }
    let mut response = answer::bytes(StatusCode::OK, TEXT, Vec::new());
    *response.body_mut() = Body::from_stream(content);
    Ok(response)
}

fn check(query: &Query, name: &str) -> Result<(), Status> {
    let mut errors = Vec::new();
    for (parameter, min, rule) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        if let Some(number) = query.number(parameter)?.filter(|number| *number < min) {
            errors.push(FieldError::invalid(parameter, number, rule));
        }
    }
    if query.has("sinceSeconds") && query.has("sinceTime") {
        errors.push(FieldError::forbidden(
            "",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("", "PodLogOptions", name, &errors))
    }
}

/// The container asked for, or the only one beside init and ephemeral containers.
pub(super) fn container(pod: &Object, asked: &str) -> Result<String, Status> {
    let names = |field: &str| -> Vec<String> {
        pod.at(&format!("/spec/{field}"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|container| container.get("name")?.as_str().map(ToOwned::to_owned))
            .collect()
    };
    let own = names("containers");
    if let ([only], true) = (own.as_slice(), asked.is_empty()) {
        return Ok(only.clone());
    }
    let all = [names("initContainers"), own, names("ephemeralContainers")].concat();
    if asked.is_empty() {
        return Err(Status::bad_request(format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            pod.name(),
            all.join(" ")
        )));
    }
    if all.iter().any(|name| name == asked) {
        return Ok(asked.to_owned());
    }
    let name = pod.name();
    Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_must_be_named_unless_it_is_the_only_one_beside_init_containers() {
        let pod = |spec: Value| {
            let pod = json!({ "metadata": { "name": "p" }, "spec": spec });
            Object::new(pod).expect("an object")
        };
        let one = pod(json!({
            "initContainers": [{ "name": "i" }], "containers": [{ "name": "c" }],
        }));
        assert_eq!(container(&one, "").expect("the only one"), "c");
        assert_eq!(container(&one, "i").expect("it is there"), "i");
        let several = pod(json!({
            "initContainers": [{ "name": "i" }],
            "containers": [{ "name": "c" }, { "name": "d" }],
            "ephemeralContainers": [{ "name": "e" }],
        }));
        assert_eq!(
            container(&several, "").expect_err("it must be named").message(),
            "a container name must be specified for pod p, choose one of: [i c d e]"
        );
        assert_eq!(container(&several, "e").expect("it is there"), "e");
    }
}
