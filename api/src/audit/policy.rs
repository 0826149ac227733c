//! [`Policy`]: of which requests what is written down: the first rule that is about a request decides.

use serde::Deserialize;

use crate::authn::User;
use crate::authz::{Attributes, ResourceAttributes};

/// How much of a request is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Level {
    /// Nothing.
    None,
    /// Who asked what, and the outcome.
    Metadata,
    /// The object that was sent, too.
    Request,
    /// The answer, too.
    RequestResponse,
}

/// When something is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Stage {
    /// Before anything is done.
    RequestReceived,
    /// The answer has begun, and goes on.
    ResponseStarted,
    /// All is done.
    ResponseComplete,
    /// The server failed.
    Panic,
}

impl Stage {
    /// As events name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A document of `audit.k8s.io/v1`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What is written down of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) level: Level,
    pub(super) omitted: Vec<Stage>,
    pub(super) omits_managed_fields: bool,
}

impl Policy {
    /// Reads one, as YAML or JSON. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            let (version, kind) = (&policy.api_version, &policy.kind);
            return Err(format!("expected a Policy of audit.k8s.io/v1, not {kind} of {version}"));
        }
        if policy.rules.is_empty() {
            return Err("it has no rules".to_owned());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{index}]{why}"))?;
        }
        Ok(policy)
    }

    pub(crate) fn decide(&self, user: &User, attributes: &Attributes) -> Decision {
        let found = self.rules.iter().find(|rule| rule.is_about(user, attributes));
        let Some(rule) = found else {
            let level = Level::None;
            return Decision { level, omitted: Vec::new(), omits_managed_fields: false };
        };
        let omitted = self.omit_stages.iter().chain(&rule.omit_stages).copied().collect();
        let omits_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Decision { level: rule.level, omitted, omits_managed_fields }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let is_of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if is_of_resources && !self.non_resource_urls.is_empty() {
            return Err(".nonResourceURLs: rules cannot apply to both regular resources and \
                        non-resource URLs"
                .to_owned());
        }
        for url in &self.non_resource_urls {
            let is_good = url == "*"
                || url.starts_with('/')
                    && !url.trim_end_matches('*').contains('*')
                    && !url.ends_with("**");
            if !is_good {
                return Err(format!(
                    ".nonResourceURLs: {url:?} must begin with \"/\", with \"*\" at its end alone"
                ));
            }
        }
        for of_group in &self.resources {
            if of_group.group.contains('/') {
                return Err(format!(".resources: {:?} is no group", of_group.group));
            }
            if !of_group.resource_names.is_empty() && of_group.resources.is_empty() {
                return Err(".resources.resourceNames: using resourceNames requires at least one \
                            resource"
                    .to_owned());
            }
        }
        Ok(())
    }

    fn is_about(&self, user: &User, attributes: &Attributes) -> bool {
        let has = |list: &[String], one: &str| list.is_empty() || list.iter().any(|own| own == one);
        let (verb, is_of_target) = match attributes {
            Attributes::Resource(wanted) => (&*wanted.verb, self.is_of_resource(wanted)),
            Attributes::Path { verb, path } => (verb.as_str(), self.is_of_path(path)),
        };
        is_of_target
            && has(&self.users, &user.name)
            && self.is_of_groups(user)
            && has(&self.verbs, verb)
    }

    fn is_of_groups(&self, user: &User) -> bool {
        self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.is_in(group))
    }

    fn is_of_resource(&self, wanted: &ResourceAttributes) -> bool {
        if !self.namespaces.is_empty() && !self.namespaces.contains(&wanted.namespace) {
            return false;
        }
        if self.resources.is_empty() {
            return !self.namespaces.is_empty() || self.non_resource_urls.is_empty();
        }
        self.resources.iter().any(|one| one.is_about(wanted))
    }

    fn is_of_path(&self, path: &str) -> bool {
        if !self.resources.is_empty() || !self.namespaces.is_empty() {
            return false;
        }
        let fits = |url: &String| match url.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == url,
        };
        self.non_resource_urls.is_empty() || self.non_resource_urls.iter().any(fits)
    }
}

impl GroupResources {
    fn is_about(&self, wanted: &ResourceAttributes) -> bool {
        if self.group != wanted.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let is_named = self.resource_names.is_empty() || self.resource_names.contains(&wanted.name);
        let (part, whole) = (wanted.subresource.as_str(), wanted.part());
        is_named
            && self.resources.iter().any(|resource| {
                *resource == *whole
                    || resource == "*"
                    || resource
                        .strip_prefix("*/")
                        .is_some_and(|own| !part.is_empty() && own == part)
                    || resource.strip_suffix("/*").is_some_and(|own| own == wanted.resource)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: None
  userGroups: ["system:authenticated"]
  nonResourceURLs: ["/api*", "/version"]
- level: Request
  namespaces: [kube-system]
  resources: [{group: "", resources: [configmaps], resourceNames: [one]}]
  omitManagedFields: true
- level: Metadata
  resources: [{group: "", resources: [secrets, "*/status", "pods/*"]}]
  omitStages: [Panic]
- level: RequestResponse
  resources: [{group: apps}]
"#;

    fn resource(verb: &'static str, group: &str, resource: &str, namespace: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes::Resource(ResourceAttributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: "one".into(),
            ..ResourceAttributes::default()
        })
    }

    #[test]
    fn the_first_rule_that_is_about_a_request_decides() {
        let policy = Policy::parse(TEXT).unwrap();
        let path = |path: &str| Attributes::Path { verb: "get".into(), path: path.into() };
        let jane = User::authenticated("jane", &[]);
        let proxy = User::authenticated("system:kube-proxy", &[]);
        for (user, attributes, level) in [
            (&proxy, resource("watch", "", "services", ""), Level::None),
            (&proxy, resource("watch", "", "secrets", ""), Level::Metadata),
            (&jane, path("/apis/apps"), Level::None),
            (&jane, resource("get", "", "configmaps", "kube-system"), Level::Request),
            (&jane, resource("get", "", "configmaps", "default"), Level::None),
            (&jane, resource("get", "", "nodes/status", ""), Level::Metadata),
            (&jane, resource("create", "", "pods/exec", "default"), Level::Metadata),
            (&jane, resource("create", "", "services", "default"), Level::None),
            (&jane, resource("create", "apps", "deployments", "a"), Level::RequestResponse),
        ] {
            assert_eq!(policy.decide(user, &attributes).level, level, "{attributes:?}");
        }
        let secret = policy.decide(&jane, &resource("get", "", "secrets", "a"));
        assert_eq!(secret.omitted, [Stage::RequestReceived, Stage::Panic]);
        assert!(!secret.omits_managed_fields);
        let map = policy.decide(&jane, &resource("get", "", "configmaps", "kube-system"));
        assert!(map.omits_managed_fields);
    }

    #[test]
    fn a_policy_that_is_none_says_why() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        for (text, why) in [
            ("apiVersion: v1\nkind: Policy\n".to_owned(), "not Policy of v1"),
            (head.to_owned(), "no rules"),
            (format!("{head}rules: [{{level: All}}]"), "unknown variant"),
            (format!("{head}rules: [{{level: None, user: [a]}}]"), "unknown field"),
            (
                format!("{head}rules: [{{level: None, namespaces: [a], nonResourceURLs: [/a]}}]"),
                "rules[0].nonResourceURLs",
            ),
        ] {
            let error = Policy::parse(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
