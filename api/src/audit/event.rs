//! The events about a request, as documents of `audit.k8s.io/v1`.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Uri};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::policy::Stage;
use super::trail::Trail;
use crate::authn::User;
use crate::authz::Attributes;

/// What is known of a request when it begins.
pub(crate) struct Begun {
    trail: Arc<Trail>,
    event: Value,
}

/// How a request ended, as far as events tell.
pub(crate) struct Outcome {
    /// The HTTP code.
    pub(crate) code: u16,
    /// The answer's document, where it was read.
    pub(crate) document: Option<Value>,
}

impl Begun {
    pub(crate) fn new(
        trail: &Arc<Trail>,
        id: &HeaderValue,
        (uri, headers): (&Uri, &HeaderMap),
        client: Option<SocketAddr>,
        user: &User,
        attributes: &Attributes,
    ) -> Self {
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let path = uri.path_and_query().map_or(uri.path(), http::uri::PathAndQuery::as_str);
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": format!("{:?}", trail.decision.level),
            "auditID": id.to_str().unwrap_or_default(),
            "requestURI": path,
            "verb": verb(attributes),
            "user": info(user),
            "requestReceivedTimestamp": micros(Timestamp::now()),
        });
        let sources = sources(headers, client);
        if !sources.is_empty() {
            event["sourceIPs"] = json!(sources);
        }
        if let Some(agent) = agent {
            event["userAgent"] = agent.into();
        }
        if let Attributes::Resource(wanted) = attributes {
            let mut reference = Map::new();
            for (field, value) in [
                ("resource", &wanted.resource),
                ("namespace", &wanted.namespace),
                ("name", &wanted.name),
                ("apiGroup", &wanted.group),
                ("apiVersion", &wanted.version),
                ("subresource", &wanted.subresource),
            ] {
                if !value.is_empty() {
                    reference.insert(field.to_owned(), value.as_str().into());
                }
            }
            event["objectRef"] = reference.into();
        }
        Self { trail: Arc::clone(trail), event }
    }

    /// The event of a stage; nothing where the policy leaves it out.
    pub(crate) fn at(&self, stage: Stage, outcome: Option<Outcome>) -> Option<Value> {
        if self.trail.decision.omitted.contains(&stage) {
            return None;
        }
        let mut event = self.event.clone();
        event["stage"] = stage.as_str().into();
        event["stageTimestamp"] = micros(Timestamp::now()).into();
        let left = self.trail.left();
        if let Some(user) = &left.acting_as {
            event["impersonatedUser"] = info(user);
        }
        let reference = event.get_mut("objectRef").and_then(Value::as_object_mut);
        if let (Some(reference), Some(sent)) = (reference, left.metadata.as_object()) {
            for (field, value) in sent.iter().filter(|(_, value)| *value != "") {
                reference.entry(field.clone()).or_insert_with(|| value.clone());
            }
        }
        if let Some(request) = left.request {
            event["requestObject"] = request;
        }
        if !left.annotations.is_empty() {
            event["annotations"] = json!(left.annotations);
        }
        if let Some(outcome) = outcome {
            self.conclude(&mut event, stage, outcome);
        }
        Some(event)
    }

    fn conclude(&self, event: &mut Value, stage: Stage, Outcome { code, document }: Outcome) {
        let mut status = json!({ "metadata": {}, "code": code });
        let is_status = document
            .as_ref()
            .is_some_and(|document| document["kind"] == "Status" && document["apiVersion"] == "v1");
        if let Some(document) = document {
            for field in ["status", "message", "reason", "details"] {
                if let Some(value) = document.get(field).filter(|_| is_status) {
                    status[field] = value.clone();
                }
            }
            let is_shown = self.trail.decision.level == super::Level::RequestResponse;
            if is_shown && stage != Stage::ResponseStarted {
                event["responseObject"] = self.trail.shown(document);
            }
        }
        event["responseStatus"] = status;
    }
}

fn verb(attributes: &Attributes) -> &str {
    match attributes {
        Attributes::Resource(wanted) => &wanted.verb,
        Attributes::Path { verb, .. } => verb,
    }
}

fn info(user: &User) -> Value {
    let mut info = json!({});
    if !user.name.is_empty() {
        info["username"] = user.name.as_str().into();
    }
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// Where a request comes from: the addresses that proxies name, then that of the connection.
fn sources(headers: &HeaderMap, client: Option<SocketAddr>) -> Vec<String> {
    let named = |header: &str| {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        let all = values.flat_map(|value| value.split(','));
        let addresses = all.filter_map(|text| text.trim().parse::<std::net::IpAddr>().ok());
        addresses.map(|address| address.to_string()).collect::<Vec<_>>()
    };
    let mut all: Vec<String> = Vec::new();
    let connection = client.map(|client| client.ip().to_canonical().to_string());
    for address in named("x-forwarded-for").into_iter().chain(named("x-real-ip")).chain(connection)
    {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

fn micros(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
