//! [`Status`]: every refusal, as Kubernetes words it. The only place where an HTTP code is chosen
//! (invariant A3).

mod field;

use std::fmt;

use kontiki_storage::kv::KvError;
use serde::{Deserialize, Serialize};

pub use field::{FieldError, FieldErrorKind};

/// Why a request was refused: the machine-readable word of a `Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words are Kubernetes' own, documented there")]
pub enum Reason {
    #[serde(rename = "")]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

/// One of the causes of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cause {
    /// Its kind, for machines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field it is about, as a path (`spec.containers[0].image`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its resource or kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The single causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

/// The body of a `Status`, boxed so that `Result<_, Status>` stays small.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    code: u16,
    reason: Reason,
    /// A word of somebody else's, in the place of `reason`.
    foreign_reason: Option<String>,
    message: String,
    details: Option<Details>,
    metadata_continue: Option<String>,
}

/// An answer that is not an object: a refusal, or "done" for what leaves nothing to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status(Box<Body>);

impl Status {
    fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Body {
            code,
            reason,
            foreign_reason: None,
            message: message.into(),
            details: None,
            metadata_continue: None,
        }))
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.0.details.get_or_insert_default();
        group.clone_into(&mut details.group);
        kind.clone_into(&mut details.kind);
        name.clone_into(&mut details.name);
        self
    }

    /// 200: done, with the uid of what it was done to.
    pub fn success(group: &str, kind: &str, name: &str, uid: &str) -> Self {
        let mut status = Self::new(200, Reason::Unknown, "").about(group, kind, name);
        uid.clone_into(&mut status.0.details.get_or_insert_default().uid);
        status
    }

    /// 201: done, something was created that is not shown.
    pub fn created() -> Self {
        Self::new(201, Reason::Unknown, "")
    }

    /// 404: the object is not there.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(group, resource);
        Self::new(404, Reason::NotFound, format!("{what} {name:?} not found"))
            .about(group, resource, name)
    }

    /// 404: the path leads nowhere.
    pub fn no_such_path() -> Self {
        let mut status =
            Self::new(404, Reason::NotFound, "the server could not find the requested resource");
        status.0.details = Some(Details::default());
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(group, resource);
        Self::new(409, Reason::AlreadyExists, format!("{what} {name:?} already exists"))
            .about(group, resource, name)
    }

    /// 409: the request does not fit what is stored.
    pub fn conflict(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let what = qualified(group, resource);
        Self::new(
            409,
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {what} {name:?}: {why}"),
        )
        .about(group, resource, name)
    }

    /// 409: the object was changed since it was read.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try \
             again",
        )
    }

    /// 409: server-side apply met fields of other managers; each is a cause to be added.
    pub fn apply_conflict(message: impl Into<String>) -> Self {
        let mut status = Self::new(409, Reason::Conflict, message);
        status.0.details = Some(Details::default());
        status
    }

    /// 500 without a reason: what Kubernetes answers with an error that it has no class for.
    pub fn unclassified(message: impl Into<String>) -> Self {
        Self::new(500, Reason::Unknown, message)
    }

    /// 422: fields of the object are wrong.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let what = qualified(group, kind);
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let text = match texts.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut status =
            Self::new(422, Reason::Invalid, format!("{what} {name:?} is invalid: {text}"))
                .about(group, kind, name);
        status.0.details.get_or_insert_default().causes =
            errors.iter().map(FieldError::cause).collect();
        status
    }

    /// 403: this user may not do that.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let what = qualified(group, resource);
        let message = match (what.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{what} is forbidden: {why}"),
            (false, false) => format!("{what} {name:?} is forbidden: {why}"),
        };
        Self::new(403, Reason::Forbidden, message).about(group, resource, name)
    }

    /// 401: who this is cannot be told.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 422: the request was understood and cannot be carried out on this object. `why` is for the log:
    /// Kubernetes keeps it to itself, and clients compare the message.
    pub fn unprocessable(why: impl fmt::Display) -> Self {
        tracing::debug!(%why, "a request cannot be carried out");
        let message = "the server rejected our request due to an error in our request";
        let mut status = Self::new(422, Reason::Invalid, message);
        status.0.details = Some(Details::default());
        status
    }

    /// 405: this resource does not have that verb.
    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let what = qualified(group, resource);
        Self::new(
            405,
            Reason::MethodNotAllowed,
            format!("{verb} is not supported on resources of kind {what:?}"),
        )
        .about(group, resource, "")
    }

    /// 405: nothing comes to be any more of a kind whose definition is going.
    pub fn definition_terminating(group: &str, resource: &str, verb: &str) -> Self {
        let mut status = Self::method_not_supported(group, resource, verb);
        status.0.message =
            format!("{verb} not allowed while custom resource definition is terminating");
        status
    }

    /// 405: the path does not have that HTTP method.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406: no answer in a form the client takes.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        Self::new(
            406,
            Reason::NotAcceptable,
            format!("only the following media types are accepted: {}", offered.join(", ")),
        )
    }

    /// 415: the body's form is not taken.
    pub fn unsupported_media_type(taken: &[&str]) -> Self {
        Self::new(
            415,
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                taken.join(", ")
            ),
        )
    }

    /// 413: the request or the object is too large.
    pub fn too_large(message: impl fmt::Display) -> Self {
        Self::new(
            413,
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: {message}"),
        )
    }

    /// 410: the revision or the continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 410: a continue token is too old, and this is another to go on with at the latest revision.
    pub fn expired_continue(token: String) -> Self {
        let mut status = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You \
             can start a new list without the continue parameter, or use the continue token in \
             this response to retrieve the remainder of the results. Continuing with the provided \
             token results in an inconsistent list - objects that were created, modified, or \
             deleted between the time the first chunk was returned and now may show up in the list.",
        );
        status.0.metadata_continue = Some(token);
        status
    }

    /// 504: the revision asked for is not there yet.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let mut status = Self::new(
            504,
            Reason::Timeout,
            format!("Timeout: Too large resource version: {requested}, current: {current}"),
        );
        status.0.details = Some(Details {
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            }],
            retry_after_seconds: 1,
            ..Details::default()
        });
        status
    }

    /// 504: the deadline passed.
    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {message}"))
    }

    /// 500 with a time to try again: it could not be done now.
    pub fn server_timeout(group: &str, resource: &str, verb: &str, seconds: u32) -> Self {
        let what = qualified(group, resource);
        let mut status = Self::new(
            500,
            Reason::ServerTimeout,
            format!(
                "The {verb} operation against {what} could not be completed at this time, \
                     please try again."
            ),
        )
        .about(group, resource, verb);
        status.0.details.get_or_insert_default().retry_after_seconds = seconds;
        status
    }

    /// 429: too much at once.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        let mut status = Self::new(429, Reason::TooManyRequests, message);
        status.0.details = Some(Details { retry_after_seconds: seconds, ..Details::default() });
        status
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// 500: the server's own fault.
    pub fn internal(message: impl fmt::Display) -> Self {
        let mut status =
            Self::new(500, Reason::InternalError, format!("Internal error occurred: {message}"));
        status.0.details = Some(Details {
            causes: vec![Cause { message: message.to_string(), ..Cause::default() }],
            ..Details::default()
        });
        status
    }

    /// What the store's refusal means to a client.
    pub fn from_kv(error: &KvError) -> Self {
        match error {
            KvError::Compacted { requested, compacted } => {
                Self::expired(format!("too old resource version: {requested} ({compacted})"))
            }
            KvError::FutureRevision { requested, current } => {
                Self::too_large_resource_version(requested.get(), current.get())
            }
            KvError::Fenced { .. } => {
                let mut status = Self::new(409, Reason::Conflict, error.to_string());
                status.0.details = Some(Details {
                    causes: vec![Cause { reason: FENCED.into(), ..Cause::default() }],
                    ..Details::default()
                });
                status
            }
            KvError::Invalid(_) | KvError::NoSpace => Self::internal(error),
            KvError::TooLarge { .. } => Self::too_large(error),
            KvError::Unavailable { .. } => {
                let mut status = Self::unavailable(error.to_string());
                status.0.details = Some(Details { retry_after_seconds: 1, ..Details::default() });
                status
            }
            KvError::Unknown { .. } => Self::timeout(error),
            KvError::SlowWatcher { .. } | KvError::Failed { .. } => {
                Self::unavailable(error.to_string())
            }
        }
    }

    /// The same with one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.0.details.get_or_insert_default().causes.push(Cause {
            reason: reason.into(),
            message: message.into(),
            field: field.into(),
        });
        self
    }

    /// A status as another server (a node's agent) sent it.
    pub fn foreign(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => Reason::BadRequest,
            401 => Reason::Unauthorized,
            403 => Reason::Forbidden,
            404 => Reason::NotFound,
            409 => Reason::Conflict,
            503 => Reason::ServiceUnavailable,
            504 => Reason::Timeout,
            _ => Reason::InternalError,
        };
        Self::new(code, reason, message)
    }

    /// A refusal in the words of a webhook.
    pub fn denied(
        code: u16,
        reason: &str,
        message: impl Into<String>,
        details: Option<&serde_json::Value>,
    ) -> Self {
        let known = serde_json::from_value(reason.into()).unwrap_or(Reason::Unknown);
        let mut status = Self::new(code, known, message);
        let is_foreign = known == Reason::Unknown && !reason.is_empty();
        status.0.foreign_reason = is_foreign.then(|| reason.to_owned());
        status.0.details = details.and_then(|details| serde_json::from_value(details.clone()).ok());
        status
    }

    /// 403 by default: a policy refuses the write, for a reason of its own.
    #[must_use]
    pub fn for_reason(mut self, reason: &str) -> Self {
        let (code, reason) = match reason {
            "Unauthorized" => (401, Reason::Unauthorized),
            "Forbidden" => (403, Reason::Forbidden),
            "RequestEntityTooLarge" => (413, Reason::RequestEntityTooLarge),
            _ => (422, Reason::Invalid),
        };
        self.0.code = code;
        self.0.reason = reason;
        self
    }

    /// 403: policies refuse the write in their own words, the reason theirs where they give one.
    pub fn forbidden_by(
        (group, resource, name): (&str, &str, &str),
        message: &str,
        reason: &str,
    ) -> Self {
        let mut status = Self::forbidden(group, resource, name, "");
        message.clone_into(&mut status.0.message);
        if reason == "Invalid" {
            status.0.reason = Reason::Invalid;
        }
        status
    }

    /// The HTTP code.
    pub fn code(&self) -> u16 {
        self.0.code
    }

    /// Why, for machines.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Why, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What it is about.
    pub fn details(&self) -> Option<&Details> {
        self.0.details.as_ref()
    }

    /// When to try again, where that is known.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0)
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.0.reason == Reason::NotFound
    }

    /// Whether the name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.0.reason == Reason::AlreadyExists
    }

    /// Whether the object was changed since it was read, or does not fit otherwise.
    pub fn is_conflict(&self) -> bool {
        self.0.reason == Reason::Conflict && !self.is_fenced()
    }

    /// Whether fields were wrong.
    pub fn is_invalid(&self) -> bool {
        self.0.reason == Reason::Invalid
    }

    /// Whether it is not allowed.
    pub fn is_forbidden(&self) -> bool {
        self.0.reason == Reason::Forbidden
    }

    /// Whether a revision was too old.
    pub fn is_expired(&self) -> bool {
        matches!(self.0.reason, Reason::Expired | Reason::Gone)
    }

    /// Whether the writer's term as leader is past (invariant R9): it must stop.
    pub fn is_fenced(&self) -> bool {
        self.details().is_some_and(|details| details.causes.iter().any(|c| c.reason == FENCED))
    }

    /// Whether the same request can be sent again later with hope.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.reason,
            Reason::ServerTimeout
                | Reason::Timeout
                | Reason::TooManyRequests
                | Reason::ServiceUnavailable
        )
    }

    /// The `Status` document.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a status must have a JSON form")
    }
}

const FENCED: &str = "LeaderTermPast";

impl Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            kind: &'a str,
            api_version: &'a str,
            metadata: serde_json::Value,
            status: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            message: &'a str,
            #[serde(skip_serializing_if = "is_unknown")]
            reason: Reason,
            #[serde(rename = "reason", skip_serializing_if = "Option::is_none")]
            foreign_reason: &'a Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: &'a Option<Details>,
            code: u16,
        }
        #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
        fn is_unknown(reason: &Reason) -> bool {
            *reason == Reason::Unknown
        }
        let metadata = match &self.0.metadata_continue {
            Some(token) => serde_json::json!({ "continue": token }),
            None => serde_json::json!({}),
        };
        Document {
            kind: "Status",
            api_version: "v1",
            metadata,
            status: if self.0.code < 400 { "Success" } else { "Failure" },
            message: &self.0.message,
            reason: self.0.reason,
            foreign_reason: &self.0.foreign_reason,
            details: &self.0.details,
            code: self.0.code,
        }
        .serialize(serializer)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Status {}

impl From<KvError> for Status {
    fn from(error: KvError) -> Self {
        Self::from_kv(&error)
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
