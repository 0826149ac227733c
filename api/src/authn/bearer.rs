//! Bearer tokens: those of service accounts, and bootstrap tokens, which are secrets in
//! `kube-system`.

use k8s_openapi::api::core::v1::Secret;

use super::User;
use crate::client::Client;
use crate::status::Status;
use crate::tokens::{TokenError, Tokens};

const BOOTSTRAP_TYPE: &str = "bootstrap.kubernetes.io/token";
const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// `abcdef.0123456789abcdef`
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Tells who a client is by its token.
pub(crate) async fn authenticate(
    tokens: &Tokens,
    client: &Client,
    token: &str,
) -> Result<User, Status> {
    if let Some((id, secret)) = bootstrap_parts(token) {
        return bootstrap(client, id, secret).await;
    }
    match tokens.authenticate(token, &tokens.audiences()).await {
        Ok((user, _)) => Ok(user),
        Err(TokenError::Unavailable(status)) => Err(status),
        Err(why) => {
            tracing::info!(%why, "refused a bearer token");
            Err(Status::unauthorized())
        }
    }
}

/// Identity and secret of a bootstrap token, if it has the form of one.
fn bootstrap_parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_good = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (is_good(id, ID_LENGTH) && is_good(secret, SECRET_LENGTH)).then_some((id, secret))
}

async fn bootstrap(client: &Client, id: &str, secret: &str) -> Result<User, Status> {
    let name = format!("bootstrap-token-{id}");
    let found: Secret = match client.get("kube-system", &name).await {
        Ok(found) => found,
        Err(status) if status.is_not_found() => return Err(Status::unauthorized()),
        Err(status) => return Err(status),
    };
    bootstrap_user(&found, id, secret, jiff::Timestamp::now()).map_err(|why| {
        tracing::info!(%why, id, "refused a bootstrap token");
        Status::unauthorized()
    })
}

fn bootstrap_user(
    stored: &Secret,
    id: &str,
    secret: &str,
    now: jiff::Timestamp,
) -> Result<User, &'static str> {
    let field = |name: &str| {
        let bytes = stored.data.as_ref().and_then(|data| data.get(name));
        bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
    };
    if stored.type_.as_deref() != Some(BOOTSTRAP_TYPE)
        || stored.metadata.deletion_timestamp.is_some()
    {
        return Err("it is no bootstrap token");
    }
    if field("token-id") != id || !is_same(field("token-secret").as_bytes(), secret.as_bytes()) {
        return Err("the secret is another");
    }
    let expiration = field("expiration");
    let is_ahead = |text: &str| text.parse::<jiff::Timestamp>().is_ok_and(|end| end > now);
    if !expiration.is_empty() && !is_ahead(&expiration) {
        return Err("its time is over");
    }
    if field("usage-bootstrap-authentication") != "true" {
        return Err("it is not for authentication");
    }
    let extra = field("auth-extra-groups");
    let extra = extra.split(',').map(str::trim).filter(|group| !group.is_empty());
    let mut groups = vec![BOOTSTRAPPERS];
    for group in extra {
        if !group.starts_with("system:bootstrappers:") {
            return Err("it names a group that is not one of system:bootstrappers");
        }
        groups.push(group);
    }
    Ok(User::authenticated(format!("system:bootstrap:{id}"), &groups))
}

/// Compared in a time that does not tell how far they agree.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |sum, (l, r)| sum | (l ^ r)) == 0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "abcdef";
    const SECRET: &str = "0123456789abcdef";

    fn stored(changes: &Value) -> Secret {
        let mut data = json!({
            "token-id": ID,
            "token-secret": SECRET,
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers",
        });
        data.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let data = data.as_object().unwrap().iter().map(|(key, value)| {
            (key.clone(), k8s_openapi::ByteString(value.as_str().unwrap().as_bytes().to_vec()))
        });
        Secret {
            type_: Some(BOOTSTRAP_TYPE.into()),
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_bootstrap_token_is_good_with_its_secret_in_its_time_for_its_use() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let user = bootstrap_user(&stored(&json!({})), ID, SECRET, now).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert!(user.is_in("system:bootstrappers") && user.is_in("system:bootstrappers:workers"));
        for changes in [
            json!({ "token-secret": "another" }),
            json!({ "expiration": "2025-12-31T23:59:59Z" }),
            json!({ "expiration": "soon" }),
            json!({ "usage-bootstrap-authentication": "false" }),
            json!({ "auth-extra-groups": "system:masters" }),
        ] {
            assert!(bootstrap_user(&stored(&changes), ID, SECRET, now).is_err(), "{changes}");
        }
        let later = json!({ "expiration": "2026-01-01T00:00:01Z" });
        bootstrap_user(&stored(&later), ID, SECRET, now).unwrap();
    }

    #[test]
    fn only_what_has_the_form_of_a_bootstrap_token_is_taken_for_one() {
        assert_eq!(bootstrap_parts("abcdef.0123456789abcdef"), Some((ID, SECRET)));
        for other in ["abcdef", "a.b.c", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde"] {
            assert_eq!(bootstrap_parts(other), None, "{other}");
        }
    }
}
