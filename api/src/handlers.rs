//! One verb each, thin: decode, call the registry, encode.

mod body;
mod cluster;
mod component;
mod connect;
mod copied;
mod delete;
mod documents;
mod log;
mod measured;
mod options;
mod proxy;
mod read;
mod review;
mod socket;
mod subresource;
mod token;
mod watch;
mod write;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Method, Uri};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;

use crate::context::RequestContext;
use crate::negotiate::{Form, Offer, negotiate};
use crate::query::Query;
use crate::registry::options::Part;
use crate::registry::strategy::{ALL_VERBS, Kind};
use crate::request_info::{ResourcePath, Verb};
use crate::resources::resource_metrics;
use crate::shape::Shaper;
use crate::state::Api;
use crate::status::Status;

pub(crate) use cluster::{
    change_members, cluster_status, enroll, jwks, node_network, rotate_encryption, rotate_keys,
};
pub(crate) use connect::pass_on;
pub(crate) use documents::{discovery, openapi, root};
pub(crate) use proxy::{causes, passed_on};
pub(crate) use subresource::subresource;

/// A request for a resource, allowed and understood as far as its head goes.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) ctx: RequestContext,
    pub(crate) kind: &'static Kind,
    pub(crate) path: ResourcePath,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) query: Arc<Query>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// The connection itself, where the client asks for another protocol on it.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl Call {
    /// The form in which the client takes objects of this kind.
    fn form(&self) -> Result<(Form, Shaper), Status> {
        let is_custom = self.kind.strategy.definition().is_some();
        let is_textual = is_custom || self.kind.group == resource_metrics::GROUP;
        let offer = if is_textual { Offer::Shapes } else { Offer::All };
        let form = negotiate(&self.headers, offer)?;
        let shaper = Shaper::new(self.kind, form.shape, &self.query, Timestamp::now())?;
        Ok((form, shaper))
    }

    fn refuse_verb(&self) -> Status {
        if self.kind.strategy.definition().is_some() && ALL_VERBS.contains(&self.path.verb) {
            let verb = self.path.verb.as_str();
            return Status::definition_terminating(&self.path.group, &self.path.resource, verb);
        }
        let part = match self.path.subresource.as_str() {
            "" => self.path.resource.clone(),
            part => format!("{}/{part}", self.path.resource),
        };
        Status::method_not_supported(&self.path.group, &part, self.path.verb.as_str())
    }
}

/// Handles a request for objects themselves.
pub(crate) async fn resource(call: Call) -> Result<Response, Status> {
    let is_of_one = !call.path.name.is_empty();
    match call.path.verb {
        Verb::Create if is_of_one => return Err(Status::method_not_allowed()),
        Verb::Update | Verb::Patch if !is_of_one => return Err(Status::method_not_allowed()),
        _ => {}
    }
    if !call.kind.verbs.contains(&call.path.verb) {
        return Err(call.refuse_verb());
    }
    if call.kind.group == resource_metrics::GROUP {
        return measured::read(call).await;
    }
    if !call.kind.is_stored() {
        return match call.kind.kind {
            "ComponentStatus" => component::answer(call).await,
            "Binding" => subresource::bind_named(call).await,
            _ => review::create(call).await,
        };
    }
    match call.path.verb {
        Verb::Get => read::get(call).await,
        Verb::List => read::list(call).await,
        Verb::Watch => watch::watch(call).await,
        Verb::Create => write::create(call).await,
        Verb::Update => write::update(call, Part::Main).await,
        Verb::Patch => write::patch(call, Part::Main).await,
        Verb::Delete => delete::delete(call).await,
        Verb::DeleteCollection => delete::delete_collection(call).await,
    }
}
