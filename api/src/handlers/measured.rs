//! GET of what nodes and pods use, made from what their agents measured.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Call;
use crate::answer;
use crate::context::RequestContext;
use crate::kubelet::Kubelet;
use crate::object::Object;
use crate::quantity::Quantity;
use crate::registry::options::{ListOptions, ObjectList};
use crate::registry::strategy::Kind;
use crate::request_info::{ResourcePath, Verb};
use crate::resources::{node, pod, resource_metrics};
use crate::state::Api;
use crate::status::Status;
use crate::usage::{Figures, Point};

/// The time between two readings of an agent.
const WINDOW: &str = "10s";

/// What is asked for, without the request's body.
struct Asked {
    api: Arc<Api>,
    ctx: RequestContext,
    kind: &'static Kind,
    path: ResourcePath,
}

/// One object, or a page of them: what is measured are the nodes and pods that there are, so names
/// and selectors are theirs.
pub(super) async fn read(call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    let Call { api, ctx, kind, path, query, .. } = call;
    let asked = Asked { api, ctx, kind, path };
    let shown = if asked.path.verb == Verb::List {
        let (registry, namespace) = (&asked.api.registry, &asked.path.namespace);
        let options = query.list()?;
        let list = registry.list(&asked.ctx, asked.measured_kind(), namespace, &options).await?;
        let items = measured(&asked, list.items).await?;
        shaper.list(ObjectList { items, ..list })
    } else {
        shaper.object(one(&asked).await?)
    };
    Ok(answer::document(StatusCode::OK, form.format, &shown))
}

impl Asked {
    /// The kind that is measured.
    fn measured_kind(&self) -> &'static Kind {
        if self.kind.is_namespaced() { &pod::KIND } else { &node::KIND }
    }
}

async fn one(asked: &Asked) -> Result<Object, Status> {
    let Asked { api, ctx, path, .. } = asked;
    let kind = asked.measured_kind();
    let found = api.registry.get(ctx, kind, &path.namespace, &path.name).await?;
    let name = match path.namespace.as_str() {
        "" => path.name.clone(),
        namespace => format!("{namespace}/{}", path.name),
    };
    let found = measured(asked, vec![found]).await?.pop();
    let resource = asked.kind.kind.to_ascii_lowercase();
    found.ok_or_else(|| Status::not_found(resource_metrics::GROUP, &resource, &name))
}

/// What these nodes or pods use; without those of which nobody knows.
async fn measured(asked: &Asked, objects: Vec<Object>) -> Result<Vec<Object>, Status> {
    let kubelet = asked.api.kubelet.as_ref();
    let kubelet = kubelet
        .ok_or_else(|| Status::unavailable("this server has no identity for calls to nodes"))?;
    let now = Timestamp::now();
    if !asked.kind.is_namespaced() {
        let figures = asked.api.usage.of(kubelet, &objects).await;
        let all = objects.iter().filter_map(|node| of_node(node, figures.get(node.name())?, now));
        return Ok(all.collect());
    }
    let figures = of_pods_nodes(asked, kubelet, &objects).await?;
    let of = |pod: &Object| of_pod(pod, figures.get(pod.str_at("/spec/nodeName"))?, now);
    Ok(objects.iter().filter_map(of).collect())
}

/// The figures of the nodes on which these pods run.
async fn of_pods_nodes(
    asked: &Asked,
    kubelet: &Kubelet,
    pods: &[Object],
) -> Result<HashMap<String, Arc<Figures>>, Status> {
    let running = pods.iter().filter(|pod| pod.str_at("/status/phase") == "Running");
    let names: BTreeSet<&str> = running.map(|pod| pod.str_at("/spec/nodeName")).collect();
    let registry = &asked.api.registry;
    let nodes: Vec<Object> = match names.len() {
        0 => Vec::new(),
        1..=8 => {
            let mut found = Vec::new();
            for name in names {
                // A node that is gone measures nothing any more.
                found.extend(registry.get(&asked.ctx, &node::KIND, "", name).await.ok());
            }
            found
        }
        _ => {
            let all = registry.list(&asked.ctx, &node::KIND, "", &ListOptions::default()).await?;
            all.items.into_iter().filter(|node| names.contains(node.name())).collect()
        }
    };
    Ok(asked.api.usage.of(kubelet, &nodes).await)
}

fn of_node(node: &Object, figures: &Figures, now: Timestamp) -> Option<Object> {
    let point = figures.node?;
    let mut object = head(&resource_metrics::NODES, node, point.at, now);
    object.set(&["usage"], usage(&point));
    Some(object)
}

fn of_pod(pod: &Object, figures: &Figures, now: Timestamp) -> Option<Object> {
    let containers = figures.pods.get(pod.uid())?;
    // As old as its oldest part.
    let at = containers.iter().map(|(_, point)| point.at).min()?;
    let mut object = head(&resource_metrics::PODS, pod, at, now);
    let containers: Vec<Value> = containers
        .iter()
        .map(|(name, point)| json!({ "name": name, "usage": usage(point) }))
        .collect();
    object.set(&["containers"], containers);
    Some(object)
}

fn head(kind: &Kind, of: &Object, at: Timestamp, now: Timestamp) -> Object {
    let mut object = Object::empty(&kind.api_version(), kind.kind);
    object.set_meta("name", of.name());
    if kind.is_namespaced() {
        object.set_meta("namespace", of.namespace());
    }
    object.set_meta("creationTimestamp", format!("{now:.0}"));
    if let Some(labels) = of.at("/metadata/labels") {
        object.set_meta("labels", labels.clone());
    }
    object.set(&["timestamp"], format!("{at:.0}"));
    object.set(&["window"], WINDOW);
    object
}

fn usage(point: &Point) -> Value {
    json!({
        "cpu": Quantity::nano(point.cpu_nano).to_string(),
        "memory": Quantity::bytes(point.memory_bytes).to_string(),
    })
}
