//! [`AuthorizationConfig`]: who is asked who may do what, in which order, as an
//! `AuthorizationConfiguration` says it.

mod document;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cel::Expression;
use crate::schema::{Gvk, Shape, Type, TypeId};
use crate::validation::names;
use document::{Document, Webhook};

/// The versions that are read.
const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
/// How many webhooks a configuration may have, so that a decision's time is bounded.
const AUTHORIZERS_MAX: usize = 16;
const CONDITIONS_MAX: usize = 64;
/// The longest time that a webhook may be given.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// How long answers are good where nothing is said, as upstream.
const AUTHORIZED_TTL: Duration = Duration::from_mins(5);
const UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);

/// Who is asked, in their order, checked.
#[derive(Debug, Clone)]
pub struct AuthorizationConfig {
    pub(super) authorizers: Vec<AuthorizerConfig>,
    /// The file it was read from, with what was in it.
    pub(super) file: Option<(PathBuf, String)>,
}

/// One of those who are asked.
#[derive(Debug, Clone)]
pub(super) enum AuthorizerConfig {
    /// The node authorizer.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Somebody outside.
    Webhook(WebhookConfig),
}

/// A webhook, and how it is asked.
#[derive(Debug, Clone)]
pub(super) struct WebhookConfig {
    pub(super) name: String,
    /// How long a decision may take.
    pub(super) timeout: Duration,
    /// How long it is remembered whom it allows something; zero is not at all.
    pub(super) authorized_ttl: Duration,
    /// How long it is remembered whom it does not.
    pub(super) unauthorized_ttl: Duration,
    pub(super) version: ReviewVersion,
    pub(super) failure: FailurePolicy,
    pub(super) connection: Connection,
    /// What must be true of a request for the webhook to be asked about it.
    pub(super) conditions: Vec<String>,
}

/// The version of the reviews that a webhook is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReviewVersion {
    V1,
    V1beta1,
}

/// What is decided where a webhook cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailurePolicy {
    /// The next one is asked.
    NoOpinion,
    /// It is refused.
    Deny,
}

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Connection {
    /// Where a kubeconfig says.
    Kubeconfig(PathBuf),
    /// The API server of the cluster in a pod of which this one runs.
    InCluster,
}

impl AuthorizationConfig {
    /// Reads one, as YAML or JSON. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Document =
            serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        let (version, kind) = (&document.api_version, &document.kind);
        if !VERSIONS.contains(&version.as_str()) || kind != "AuthorizationConfiguration" {
            return Err(format!(
                "expected an AuthorizationConfiguration of {}, not {kind} of {version}",
                VERSIONS[0]
            ));
        }
        Self::of(document)
    }

    /// Reads one from a file, which is read again when it changes.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let config = Self::parse(&text)?;
        Ok(Self { file: Some((path.to_owned(), text)), ..config })
    }

    /// Whether roles and bindings are asked.
    pub(crate) fn has_rbac(&self) -> bool {
        self.authorizers.iter().any(|one| matches!(one, AuthorizerConfig::Rbac))
    }

    /// Whether the node authorizer is asked.
    pub(crate) fn has_node(&self) -> bool {
        self.authorizers.iter().any(|one| matches!(one, AuthorizerConfig::Node))
    }

    /// Whether anybody outside is asked.
    pub(crate) fn has_webhook(&self) -> bool {
        self.authorizers.iter().any(|one| matches!(one, AuthorizerConfig::Webhook(_)))
    }

    fn of(document: Document) -> Result<Self, String> {
        if document.authorizers.is_empty() {
            let why = "at least one authorization mode must be defined";
            return Err(format!("authorizers: Required value: {why}"));
        }
        if document.authorizers.len() > AUTHORIZERS_MAX {
            return Err(format!(
                "authorizers: Too many: must have at most {AUTHORIZERS_MAX} items"
            ));
        }
        let (mut types, mut taken) = (BTreeSet::new(), BTreeSet::new());
        let mut authorizers = Vec::new();
        for (index, one) in document.authorizers.into_iter().enumerate() {
            let at = |why: String| format!("authorizers[{index}].{why}");
            let (of_type, name) = (one.r#type.clone(), one.name.clone());
            let authorizer = authorizer(one).map_err(at)?;
            let is_repeatable = matches!(authorizer, AuthorizerConfig::Webhook(_));
            if !types.insert(of_type.clone()) && !is_repeatable {
                return Err(at(format!("type: Duplicate value: {of_type:?}")));
            }
            if !taken.insert(name.clone()) {
                return Err(at(format!("name: Duplicate value: {name:?}")));
            }
            authorizers.push(authorizer);
        }
        Ok(Self { authorizers, file: None })
    }
}

fn authorizer(one: document::Authorizer) -> Result<AuthorizerConfig, String> {
    let name = one.name;
    let built_in = match one.r#type.as_str() {
        "Node" => Some(AuthorizerConfig::Node),
        "RBAC" => Some(AuthorizerConfig::Rbac),
        "Webhook" => None,
        other => return Err(chosen("type", other, &["Node", "RBAC", "Webhook"])),
    };
    if name.is_empty() {
        return Err("name: Required value".to_owned());
    }
    if let Some(why) = names::dns1123_subdomain(&name).first() {
        return Err(format!("name: Invalid value: {name:?}: {why}"));
    }
    match (built_in, one.webhook) {
        (Some(built_in), None) => Ok(built_in),
        (Some(_), Some(_)) => {
            Err("webhook: Invalid value: may only be specified when type=Webhook".to_owned())
        }
        (None, None) => Err("webhook: Required value: required when type=Webhook".to_owned()),
        (None, Some(of)) => {
            webhook(name, of).map(AuthorizerConfig::Webhook).map_err(|why| format!("webhook.{why}"))
        }
    }
}

fn webhook(name: String, of: Webhook) -> Result<WebhookConfig, String> {
    let timeout = of.timeout.ok_or("timeout: Required value")?.0;
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        return Err(format!("timeout: Invalid value: {timeout:?}: must be > 0s and <= 30s"));
    }
    let ttl = |field: &str, given: Option<document::GoDuration>, default, is_kept: Option<bool>| {
        match given {
            Some(ttl) if ttl.0.is_zero() => {
                Err(format!("{field}: Invalid value: \"0s\": must be > 0s"))
            }
            given => {
                let ttl = given.map_or(default, |given| given.0);
                Ok(if is_kept.unwrap_or(true) { ttl } else { Duration::ZERO })
            }
        }
    };
    let (good, bad) = (of.cache_authorized_requests, of.cache_unauthorized_requests);
    let version = match of.subject_access_review_version.as_str() {
        "v1" => ReviewVersion::V1,
        "v1beta1" => ReviewVersion::V1beta1,
        other => return Err(chosen("subjectAccessReviewVersion", other, &["v1", "v1beta1"])),
    };
    let failure = match of.failure_policy.as_str() {
        "NoOpinion" => FailurePolicy::NoOpinion,
        "Deny" => FailurePolicy::Deny,
        other => return Err(chosen("failurePolicy", other, &["NoOpinion", "Deny"])),
    };
    Ok(WebhookConfig {
        name,
        timeout,
        authorized_ttl: ttl("authorizedTTL", of.authorized_ttl, AUTHORIZED_TTL, good)?,
        unauthorized_ttl: ttl("unauthorizedTTL", of.unauthorized_ttl, UNAUTHORIZED_TTL, bad)?,
        version,
        failure,
        connection: connection(of.connection_info)
            .map_err(|why| format!("connectionInfo.{why}"))?,
        conditions: conditions(
            &of.match_condition_subject_access_review_version,
            of.match_conditions,
        )?,
    })
}

fn connection(info: document::ConnectionInfo) -> Result<Connection, String> {
    let invalid = |file: &Path, why: &str| {
        format!("kubeConfigFile: Invalid value: {}: {why}", file.display())
    };
    let file = info.kube_config_file.filter(|file| !file.as_os_str().is_empty());
    match (info.r#type.as_str(), file) {
        ("InClusterConfig", None) => Ok(Connection::InCluster),
        ("InClusterConfig", Some(_)) => {
            let why = "can only be set when type=KubeConfigFile";
            Err(format!("kubeConfigFile: Invalid value: {why}"))
        }
        ("KubeConfigFile", None) => Err("kubeConfigFile: Required value".to_owned()),
        ("KubeConfigFile", Some(file)) if !file.is_absolute() => {
            Err(invalid(&file, "must be an absolute path"))
        }
        ("KubeConfigFile", Some(file)) if !file.is_file() => {
            Err(invalid(&file, "must be a regular file"))
        }
        ("KubeConfigFile", Some(file)) => Ok(Connection::Kubeconfig(file)),
        (other, _) => Err(chosen("type", other, &["InClusterConfig", "KubeConfigFile"])),
    }
}

fn conditions(version: &str, all: Vec<document::Condition>) -> Result<Vec<String>, String> {
    const VERSION: &str = "matchConditionSubjectAccessReviewVersion";
    match version {
        "v1" => {}
        "" if all.is_empty() => {}
        other => return Err(chosen(VERSION, other, &["v1"])),
    }
    if all.len() > CONDITIONS_MAX {
        return Err(format!("matchConditions: Too many: must have at most {CONDITIONS_MAX} items"));
    }
    let mut conditions: Vec<String> = Vec::new();
    for (index, condition) in all.into_iter().enumerate() {
        let at = |why: String| format!("matchConditions[{index}].expression: {why}");
        let text = condition.expression;
        if conditions.contains(&text) {
            return Err(at(format!("Duplicate value: {text:?}")));
        }
        compile(&text).map_err(at)?;
        conditions.push(text);
    }
    Ok(conditions)
}

/// Compiles a match condition: an expression over the `spec` of a SubjectAccessReview, `request`,
/// that is true or false. The error says why it cannot be one.
pub(super) fn compile(text: &str) -> Result<Expression, String> {
    const REQUEST: &str = "request";
    if text.trim().is_empty() {
        return Err("Required value".to_owned());
    }
    let invalid = |why: &str| format!("Invalid value: {text:?}: {why}");
    let expression = Expression::compile(text, &[REQUEST]).map_err(|why| invalid(&why))?;
    let problems = expression.problems_as_condition(REQUEST, spec_type());
    match problems.first() {
        Some(problem) => Err(invalid(&format!("compilation failed: ERROR: {problem}"))),
        None => Ok(expression),
    }
}

/// The type of the `spec` of a SubjectAccessReview.
fn spec_type() -> TypeId {
    let review = Type::of_kind(Gvk::new("authorization.k8s.io", "v1", "SubjectAccessReview"));
    match review.and_then(|review| review.field("spec")).map(|field| &field.shape) {
        Some(Shape::Message(spec)) => *spec,
        _ => unreachable!("a SubjectAccessReview must have a spec"),
    }
}

fn chosen(field: &str, found: &str, from: &[&str]) -> String {
    if found.is_empty() {
        return format!("{field}: Required value");
    }
    let known: Vec<String> = from.iter().map(|one| format!("{one:?}")).collect();
    format!("{field}: Unsupported value: {found:?}: supported values: {}", known.join(", "))
}

#[cfg(test)]
mod tests;
