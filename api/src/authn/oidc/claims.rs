//! [`Claims`]: from what a token says to who somebody is, as an issuer's mappings and rules have it.

use serde_json::{Map, Value, json};

use super::config::{ClaimRule, Extra, Jwt, Mapping, UserRule};
use crate::authn::{AUTHENTICATED, User};
use crate::cel::{Expression, Variables, to_json};

/// What an issuer's tokens say of their holders.
pub(super) struct Claims {
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Expression)>,
    claim_rules: Vec<(ClaimRule, Option<Expression>)>,
    user_rules: Vec<(UserRule, Expression)>,
}

/// Where something is found.
enum Source {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

impl Source {
    fn of(mapping: &Mapping) -> Result<Option<Self>, String> {
        if mapping.is_nothing() {
            return Ok(None);
        }
        Ok(Some(if mapping.expression.is_empty() {
            let (name, prefix) = (mapping.claim.clone(), mapping.prefix.clone());
            Self::Claim { name, prefix: prefix.unwrap_or_default() }
        } else {
            Self::Expression(Expression::compile(&mapping.expression, &["claims"])?)
        }))
    }

    /// The value, and what goes before each text of it.
    fn find(&self, claims: &Map<String, Value>, all: &Variables) -> Result<(Value, &str), String> {
        match self {
            Self::Claim { name, prefix } => {
                Ok((claims.get(name).cloned().unwrap_or_default(), prefix))
            }
            Self::Expression(expression) => Ok((to_json(&expression.run(all)?)?, "")),
        }
    }
}

impl Claims {
    pub(super) fn new(jwt: &Jwt) -> Result<Self, String> {
        let mappings = &jwt.claim_mappings;
        let extra = mappings.extra.iter().map(|Extra { key, value_expression }| {
            Ok((key.clone(), Expression::compile(value_expression, &["claims"])?))
        });
        let claim_rules = jwt.claim_validation_rules.iter().map(|rule| {
            let has_expression = !rule.expression.is_empty();
            let expression =
                has_expression.then(|| Expression::compile(&rule.expression, &["claims"]));
            Ok((rule.clone(), expression.transpose()?))
        });
        let user_rules = jwt.user_validation_rules.iter();
        let user_rules = user_rules
            .map(|rule| Ok((rule.clone(), Expression::compile(&rule.expression, &["user"])?)));
        Ok(Self {
            username: Source::of(&mappings.username)?.ok_or("a username must be mapped")?,
            groups: Source::of(&mappings.groups)?,
            uid: Source::of(&mappings.uid)?,
            extra: extra.collect::<Result<_, String>>()?,
            claim_rules: claim_rules.collect::<Result<_, String>>()?,
            user_rules: user_rules.collect::<Result<_, String>>()?,
        })
    }

    /// Who a token with these claims is. The error says why nobody.
    pub(super) fn user(&self, claims: &Map<String, Value>) -> Result<User, String> {
        let mut all = Variables::new();
        all.set("claims", &Value::Object(claims.clone()));
        let name = self.name(claims, &all)?;
        for (rule, expression) in &self.claim_rules {
            check_claim(rule, expression.as_ref(), claims, &all)?;
        }
        let mut user = User { name, ..User::default() };
        if let Some(groups) = &self.groups {
            let (found, prefix) = groups.find(claims, &all)?;
            let groups = texts(&found).map_err(|why| format!("groups: {why}"))?;
            user.groups = groups.into_iter().map(|group| format!("{prefix}{group}")).collect();
        }
        if let Some(uid) = &self.uid {
            let found = uid.find(claims, &all)?.0;
            found.as_str().ok_or("uid: it must be a text")?.clone_into(&mut user.uid);
        }
        for (key, expression) in &self.extra {
            let values = texts(&to_json(&expression.run(&all)?)?)
                .map_err(|why| format!("extra {key:?}: {why}"))?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.check_user(&user)?;
        if !user.is_in(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(user)
    }

    fn name(&self, claims: &Map<String, Value>, all: &Variables) -> Result<String, String> {
        let (found, prefix) = self.username.find(claims, all)?;
        let name = found.as_str().ok_or("username: it must be a text")?;
        if name.is_empty() {
            return Err("username: it is empty".to_owned());
        }
        let is_address = matches!(&self.username, Source::Claim { name, .. } if name == "email");
        // An issuer that does not say whether it has verified an address is believed.
        let verified = claims.get("email_verified").filter(|_| is_address);
        if verified.is_some_and(|verified| *verified != true) {
            return Err("oidc: email not verified".to_owned());
        }
        Ok(format!("{prefix}{name}"))
    }

    fn check_user(&self, user: &User) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let mut variables = Variables::new();
        let shown = json!({ "username": user.name, "uid": user.uid, "groups": user.groups,
            "extra": user.extra });
        variables.set("user", &shown);
        for (UserRule { expression: text, message }, expression) in &self.user_rules {
            must_hold(expression, &variables, text, message)?;
        }
        Ok(())
    }
}

fn check_claim(
    rule: &ClaimRule,
    expression: Option<&Expression>,
    claims: &Map<String, Value>,
    all: &Variables,
) -> Result<(), String> {
    if let Some(expression) = expression {
        return must_hold(expression, all, &rule.expression, &rule.message);
    }
    let found = claims.get(&rule.claim).and_then(Value::as_str);
    match found {
        Some(value) if value == rule.required_value => Ok(()),
        Some(_) => Err(format!("the claim {:?} has another value than it must have", rule.claim)),
        None => Err(format!("the claim {:?}, which must be there, is not", rule.claim)),
    }
}

fn must_hold(
    expression: &Expression,
    variables: &Variables,
    text: &str,
    message: &str,
) -> Result<(), String> {
    if expression.is_true(variables)? {
        return Ok(());
    }
    let why = if message.is_empty() { String::new() } else { format!(": {message}") };
    Err(format!("validation expression '{text}' failed{why}"))
}

/// A text, some, or none.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => list
            .iter()
            .map(|one| {
                one.as_str().map(str::to_owned).ok_or_else(|| "it must be a list of texts".into())
            })
            .collect(),
        _ => Err("it must be a text or a list of texts".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::AuthenticationConfig;
    use super::*;

    fn user(more: &str, claims: Value) -> Result<User, String> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
                    jwt: [{issuer: {url: 'https://a.example.com', audiences: [a]}, ";
        let config = AuthenticationConfig::parse(&format!("{head}{more}}}]")).expect(more);
        let claims = claims.as_object().cloned().expect("claims");
        Claims::new(&config.jwt[0])?.user(&claims)
    }

    #[test]
    fn claims_are_mapped_with_their_prefixes() {
        let mapped = "claimMappings: {username: {claim: sub, prefix: 'oidc:'}, \
                      groups: {claim: roles, prefix: 'g:'}, uid: {claim: id}}";
        let claims = json!({ "sub": "jane", "roles": ["a", "b"], "id": "7" });
        let found = user(mapped, claims).unwrap();
        assert_eq!((found.name.as_str(), found.uid.as_str()), ("oidc:jane", "7"));
        assert_eq!(found.groups, ["g:a", "g:b", "system:authenticated"]);
        let one = user(mapped, json!({ "sub": "jane", "roles": "a", "id": "7" })).unwrap();
        assert_eq!(one.groups, ["g:a", "system:authenticated"]);
        assert!(user(mapped, json!({ "roles": ["a"], "id": "7" })).is_err(), "no name");
    }

    #[test]
    fn expressions_map_and_rules_refuse() {
        let mapped = "claimMappings: {username: {expression: 'claims.sub + \"@x\"'}, \
                      extra: [{key: 'example.com/team', valueExpression: 'claims.team'}]}, \
                      claimValidationRules: [{claim: hd, requiredValue: x}, \
                      {expression: 'claims.exp - claims.nbf <= 86400', message: too long}], \
                      userValidationRules: [{expression: '!user.username.startsWith(\"system:\")'}]";
        let claims = |sub: &str, hd: &str, exp: u32| json!({ "sub": sub, "hd": hd, "exp": exp, "nbf": 0, "team": "t" });
        let found = user(mapped, claims("jane", "x", 3600)).unwrap();
        assert_eq!(
            (found.name.as_str(), &found.extra["example.com/team"][..]),
            ("jane@x", &["t".to_owned()][..])
        );
        for (claims, why) in [
            (claims("jane", "y", 3600), "the claim \"hd\" has another value"),
            (claims("jane", "x", 90_000), "failed: too long"),
            (claims("system:a", "x", 3600), "validation expression"),
        ] {
            let refused = user(mapped, claims).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn an_address_that_is_not_verified_is_nobody_s_name() {
        let mapped = "claimMappings: {username: {claim: email, prefix: ''}}";
        assert!(user(mapped, json!({ "email": "a@x", "email_verified": false })).is_err());
        assert!(user(mapped, json!({ "email": "a@x", "email_verified": "true" })).is_err());
        assert_eq!(user(mapped, json!({ "email": "a@x" })).unwrap().name, "a@x");
    }
}
