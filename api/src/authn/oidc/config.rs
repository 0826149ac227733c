//! [`AuthenticationConfig`]: whose tokens are good beside this cluster's own, and who may come without
//! any, as an `AuthenticationConfiguration` says it.

use std::collections::BTreeSet;

use reqwest::Url;
use serde::Deserialize;

use crate::cel::Expression;

/// The versions that are read.
const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
const ISSUERS_MAX: usize = 64;

/// A document of `apiserver.config.k8s.io/v1`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfig {
    api_version: String,
    kind: String,
    /// Issuers of tokens.
    #[serde(default)]
    pub(crate) jwt: Vec<Jwt>,
    /// Who comes without a token or a certificate.
    #[serde(default)]
    pub(crate) anonymous: Option<Anonymous>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Jwt {
    pub(crate) issuer: Issuer,
    #[serde(default)]
    pub(crate) claim_validation_rules: Vec<ClaimRule>,
    pub(crate) claim_mappings: Mappings,
    #[serde(default)]
    pub(crate) user_validation_rules: Vec<UserRule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Issuer {
    pub(crate) url: String,
    #[serde(default, rename = "discoveryURL")]
    pub(crate) discovery_url: String,
    #[serde(default)]
    pub(crate) certificate_authority: String,
    #[serde(default)]
    pub(crate) audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ClaimRule {
    pub(crate) claim: String,
    pub(crate) required_value: String,
    pub(crate) expression: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UserRule {
    pub(crate) expression: String,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Mappings {
    pub(crate) username: Mapping,
    #[serde(default)]
    pub(crate) groups: Mapping,
    #[serde(default)]
    pub(crate) uid: Mapping,
    #[serde(default)]
    pub(crate) extra: Vec<Extra>,
}

/// A claim, or an expression over all claims.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Mapping {
    pub(crate) claim: String,
    pub(crate) prefix: Option<String>,
    pub(crate) expression: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Extra {
    pub(crate) key: String,
    pub(crate) value_expression: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Anonymous {
    pub(crate) enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

impl Anonymous {
    /// Whether somebody whom nobody knows may ask for a path.
    pub(crate) fn may(&self, path: &str) -> bool {
        let is_named = || self.conditions.iter().any(|one| one.path == path);
        self.enabled && (self.conditions.is_empty() || is_named())
    }
}

impl AuthenticationConfig {
    /// Reads one, as YAML or JSON. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        let (version, kind) = (&config.api_version, &config.kind);
        if !VERSIONS.contains(&version.as_str()) || kind != "AuthenticationConfiguration" {
            return Err(format!(
                "expected an AuthenticationConfiguration of {}, not {kind} of {version}",
                VERSIONS[0]
            ));
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.jwt.len() > ISSUERS_MAX {
            return Err(format!("jwt: Too many: must have at most {ISSUERS_MAX} items"));
        }
        let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
        for (index, jwt) in self.jwt.iter().enumerate() {
            let issuer = &jwt.issuer;
            let at = |why: String| format!("jwt[{index}].{why}");
            jwt.check().map_err(at)?;
            if !urls.insert(&issuer.url) {
                return Err(at(format!("issuer.url: Duplicate value: {:?}", issuer.url)));
            }
            let discovery = &issuer.discovery_url;
            if !discovery.is_empty() && !discoveries.insert(discovery) {
                return Err(at(format!("issuer.discoveryURL: Duplicate value: {discovery:?}")));
            }
        }
        let anonymous = self.anonymous.as_ref();
        if anonymous.is_some_and(|one| !one.enabled && !one.conditions.is_empty()) {
            return Err("anonymous.conditions: Invalid value: enabled should be set to true when \
                        conditions are defined"
                .to_owned());
        }
        Ok(())
    }
}

impl Jwt {
    fn check(&self) -> Result<(), String> {
        self.issuer.check()?;
        for (index, rule) in self.claim_validation_rules.iter().enumerate() {
            rule.check().map_err(|why| format!("claimValidationRules[{index}]{why}"))?;
        }
        let mappings = &self.claim_mappings;
        if mappings.username.is_nothing() {
            return Err("claimMappings.username: Required value: claim or expression is required"
                .to_owned());
        }
        let is_prefixed = [true, true, false];
        let all = [
            ("username", &mappings.username),
            ("groups", &mappings.groups),
            ("uid", &mappings.uid),
        ];
        for ((name, mapping), is_prefixed) in all.into_iter().zip(is_prefixed) {
            mapping.check(is_prefixed).map_err(|why| format!("claimMappings.{name}{why}"))?;
        }
        let mut keys = BTreeSet::new();
        for (index, extra) in mappings.extra.iter().enumerate() {
            let at = |why: &str| format!("claimMappings.extra[{index}].{why}");
            if !extra.key.contains('/') || extra.key != extra.key.to_lowercase() {
                return Err(at("key: Invalid value: must be a lower-case domain-prefixed path"));
            }
            if !keys.insert(&extra.key) {
                return Err(at("key: Duplicate value"));
            }
            compiles(&extra.value_expression, "claims")
                .map_err(|why| at(&format!("valueExpression: {why}")))?;
        }
        for (index, rule) in self.user_validation_rules.iter().enumerate() {
            compiles(&rule.expression, "user")
                .map_err(|why| format!("userValidationRules[{index}].expression: {why}"))?;
        }
        self.check_email()
    }

    /// Who takes addresses for names by an expression must look whether they are verified.
    fn check_email(&self) -> Result<(), String> {
        const VERIFIED: &str = "claims.email_verified";
        let mappings = &self.claim_mappings;
        let name = &mappings.username.expression;
        let rules = self.claim_validation_rules.iter().map(|rule| &rule.expression);
        let extra = mappings.extra.iter().map(|extra| &extra.value_expression);
        let is_seen = || rules.chain(extra).chain([name]).any(|text| text.contains(VERIFIED));
        if name.replace(VERIFIED, "").contains("claims.email") && !is_seen() {
            return Err(format!(
                "claimMappings.username.expression: Invalid value: {name:?}: {VERIFIED} must be used \
                 in claimMappings.username.expression or claimMappings.extra[*].valueExpression or \
                 claimValidationRules[*].expression when claims.email is used in \
                 claimMappings.username.expression"
            ));
        }
        Ok(())
    }
}

impl Issuer {
    fn check(&self) -> Result<(), String> {
        check_url("issuer.url", &self.url)?;
        if !self.discovery_url.is_empty() {
            check_url("issuer.discoveryURL", &self.discovery_url)?;
            if self.discovery_url.trim_end_matches('/') == self.url.trim_end_matches('/') {
                return Err(
                    "issuer.discoveryURL: Invalid value: discoveryURL must be different from \
                            URL"
                    .to_owned(),
                );
            }
        }
        if self.audiences.is_empty() {
            return Err(
                "issuer.audiences: Required value: at least one issuer.audiences is required"
                    .to_owned(),
            );
        }
        if self.audiences.iter().any(String::is_empty) {
            return Err("issuer.audiences: Required value: audience can't be empty".to_owned());
        }
        match (self.audiences.len(), self.audience_match_policy.as_str()) {
            (1, "" | "MatchAny") | (2.., "MatchAny") => {}
            _ => {
                return Err(
                    "issuer.audienceMatchPolicy: Invalid value: audienceMatchPolicy must be \
                            MatchAny for multiple audiences"
                        .to_owned(),
                );
            }
        }
        if !self.egress_selector_type.is_empty() {
            return Err("issuer.egressSelectorType: there are no egress selectors here".to_owned());
        }
        Ok(())
    }
}

fn check_url(field: &str, text: &str) -> Result<(), String> {
    let invalid = |why: &str| format!("{field}: Invalid value: {text:?}: {why}");
    if text.is_empty() {
        return Err(format!("{field}: Required value: URL is required"));
    }
    let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    if url.scheme() != "https" {
        return Err(invalid("URL scheme must be https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("URL must not contain a username or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("URL must not contain a query or a fragment"));
    }
    Ok(())
}

impl ClaimRule {
    fn check(&self) -> Result<(), String> {
        match (self.claim.is_empty(), self.expression.is_empty()) {
            (true, true) => Err(": Required value: claim or expression is required".to_owned()),
            (false, false) => {
                Err(": Invalid value: claim and expression can't both be set".to_owned())
            }
            (false, true) if !self.message.is_empty() => {
                Err(".message: Invalid value: message can't be set when claim is set".to_owned())
            }
            (true, false) if !self.required_value.is_empty() => {
                let why = "requiredValue can't be set when expression is set";
                Err(format!(".requiredValue: Invalid value: {why}"))
            }
            (true, false) => {
                compiles(&self.expression, "claims").map_err(|why| format!(".expression: {why}"))
            }
            (false, true) => Ok(()),
        }
    }
}

impl Mapping {
    pub(crate) fn is_nothing(&self) -> bool {
        self.claim.is_empty() && self.expression.is_empty()
    }

    fn check(&self, is_prefixed: bool) -> Result<(), String> {
        match (self.claim.is_empty(), self.expression.is_empty(), &self.prefix) {
            (false, false, _) => {
                Err(": Invalid value: claim and expression can't both be set".to_owned())
            }
            (false, true, None) if is_prefixed => {
                Err(".prefix: Required value: prefix is required when claim is set. It can be set \
                     to an empty string to disable prefixing"
                    .to_owned())
            }
            (false, true, Some(_)) if !is_prefixed => Err(".prefix: there is none here".to_owned()),
            (true, _, Some(_)) => {
                Err(".prefix: Invalid value: prefix can't be set when expression is set".to_owned())
            }
            (true, false, None) => {
                compiles(&self.expression, "claims").map_err(|why| format!(".expression: {why}"))
            }
            _ => Ok(()),
        }
    }
}

fn compiles(expression: &str, variable: &str) -> Result<(), String> {
    if expression.trim().is_empty() {
        return Err("Required value: expression is required".to_owned());
    }
    Expression::compile(expression, &[variable])
        .map(drop)
        .map_err(|why| format!("Invalid value: {expression:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: true, conditions: [{path: /livez}]}
jwt:
- issuer: {url: "https://issuer.example.com", audiences: [a]}
  claimMappings:
    username: {claim: sub, prefix: "oidc:"}
    groups: {expression: "claims.roles"}
"#;

    #[test]
    fn a_configuration_is_read_and_says_who_may_come_without_a_name() {
        let config = AuthenticationConfig::parse(TEXT).unwrap();
        assert_eq!(config.jwt[0].issuer.audiences, ["a"]);
        let anonymous = config.anonymous.unwrap();
        assert!(anonymous.may("/livez") && !anonymous.may("/api"));
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_said() {
        for (was, is, why) in [
            ("/v1\n", "/v2\n", "expected an AuthenticationConfiguration"),
            ("https://issuer", "http://issuer", "jwt[0].issuer.url: Invalid value"),
            ("audiences: [a]", "audiences: []", "at least one issuer.audiences is required"),
            ("audiences: [a]", "audiences: [a, b]", "must be MatchAny for multiple"),
            (", prefix: \"oidc:\"", "", "claimMappings.username.prefix: Required value"),
            ("claim: sub, prefix: \"oidc:\"", "expression: \"claims.\"", "compilation failed"),
            (
                "claim: sub, prefix: \"oidc:\"",
                "expression: \"claims.email\"",
                "email_verified must",
            ),
            ("claim: sub", "claims: sub", "unknown field"),
            ("enabled: true", "enabled: false", "enabled should be set to true"),
        ] {
            let refused = AuthenticationConfig::parse(&TEXT.replace(was, is)).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
