//! `AdmissionReview`: what webhooks and policies are told of a write.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::matching::Seen;
use super::{Admit, Operation};
use crate::authz::{Questions, ResourceAttributes};
use crate::cel::Variables;
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::status::Status;

/// A write as one of `kind`'s, which may be another version than that of the request.
pub(super) struct Shown<'a> {
    pub(super) kind: &'static Kind,
    pub(super) object: Option<&'a Object>,
    pub(super) old: Option<&'a Object>,
}

/// The `request` of a review.
pub(super) fn request(seen: &Seen<'_>, shown: &Shown<'_>, uid: &str) -> Value {
    let (admit, own) = (seen.admit, seen.admit.kind);
    let resource = |kind: &Kind| json!({ "group": kind.group, "version": kind.version, "resource": kind.plural });
    let value = |object: Option<&Object>| object.map(Object::value).cloned().unwrap_or_default();
    let mut request = json!({
        "uid": uid,
        "kind": kind_of(shown.object.or(shown.old), shown.kind),
        "resource": resource(shown.kind),
        "requestKind": kind_of(seen.object.or(admit.old), own),
        "requestResource": resource(own),
        "operation": seen.operation(),
        "userInfo": user(seen),
        "object": value(shown.object),
        "oldObject": value(shown.old),
        "dryRun": admit.ctx.dry_run,
        "options": options(seen),
    });
    let texts = [
        ("name", admit.name),
        ("namespace", seen.namespace()),
        ("subResource", admit.subresource),
        ("requestSubResource", admit.subresource),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        request[field] = text.into();
    }
    request
}

/// What the expressions about a write ask the authorizer.
pub(super) struct Asking<'a> {
    questions: Option<Arc<Questions>>,
    ctx: &'a RequestContext,
}

impl<'a> Asking<'a> {
    /// Nothing yet.
    pub(super) fn about(admit: &Admit<'a>) -> Self {
        let authorizer = admit.registry.admission().authorizer();
        Self { questions: authorizer.cloned().map(Questions::new), ctx: admit.ctx }
    }

    /// What `run` comes to, which may run several times: until everything that its expressions ask
    /// is answered, by whomever.
    pub(super) async fn settle<T>(&self, mut run: impl FnMut() -> T) -> Result<T, Status> {
        match &self.questions {
            Some(questions) => questions.settle(self.ctx.seat.as_deref(), run).await,
            None => Ok(run()),
        }
    }
}

/// The names that expressions have for a write, but for those of a policy.
pub(super) fn variables(seen: &Seen<'_>, shown: &Shown<'_>, asking: &Asking<'_>) -> Variables {
    let mut request = request(seen, shown, "");
    if let Some(map) = request.as_object_mut() {
        map.retain(|field, _| !["uid", "object", "oldObject", "options"].contains(&&**field));
        for field in ["name", "namespace", "subResource", "requestSubResource"] {
            map.entry(field).or_insert_with(|| "".into());
        }
    }
    let value = |object: Option<&Object>| object.map(Object::value).cloned().unwrap_or_default();
    let mut variables = Variables::new();
    variables.set("object", &value(shown.object));
    variables.set("oldObject", &value(shown.old));
    variables.set("request", &request);
    if let Some(questions) = &asking.questions {
        let user = seen.admit.ctx.shared_user();
        variables.set_authorizer(Arc::clone(questions) as _, user, asked(seen.admit));
    }
    variables
}

/// What a write asks for, as the authorizer was asked; the verb comes with the question.
fn asked(admit: &Admit<'_>) -> ResourceAttributes {
    ResourceAttributes {
        group: admit.kind.group.to_owned(),
        version: admit.kind.version.to_owned(),
        resource: admit.kind.plural.to_owned(),
        subresource: admit.subresource.to_owned(),
        namespace: admit.namespace.to_owned(),
        name: admit.name.to_owned(),
        ..ResourceAttributes::default()
    }
}

/// Group, version and kind of what is sent, which is not the resource's kind where a part of it has
/// a document of its own.
fn kind_of(object: Option<&Object>, kind: &Kind) -> Value {
    let object = object.filter(|object| !object.kind().is_empty());
    let Some(object) = object else {
        return json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
    };
    let (group, version) = crate::registry::scheme::split_api_version(object.api_version());
    json!({ "group": group, "version": version, "kind": object.kind() })
}

fn user(seen: &Seen<'_>) -> Value {
    let user = seen.admit.ctx.user();
    let mut info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn options(seen: &Seen<'_>) -> Value {
    let ctx = seen.admit.ctx;
    let kind = match seen.admit.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = Map::new();
    options.insert("apiVersion".to_owned(), "meta.k8s.io/v1".into());
    options.insert("kind".to_owned(), kind.into());
    if ctx.dry_run {
        options.insert("dryRun".to_owned(), json!(["All"]));
    }
    if !ctx.field_manager.is_empty() && kind != "DeleteOptions" {
        options.insert("fieldManager".to_owned(), ctx.field_manager.clone().into());
    }
    Value::Object(options)
}
