//! What is shown to registries: the pull secrets of a pod, for the images that they are for. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Map, Value};

use crate::runtime::Credentials;

/// What Docker's hub is called, beside `docker.io`.
const HUB: [&str; 4] =
    ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// Names of the secrets that the pod's images are pulled with.
pub fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    let secrets = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    secrets.map(|secret| secret.name.as_str()).filter(|name| !name.is_empty())
}

/// What to show for an image, the most specific first; empty where nothing is to be shown.
pub fn for_image<'a>(
    secrets: impl IntoIterator<Item = &'a Secret>,
    image: &str,
) -> Vec<Credentials> {
    let place = place(image);
    let mut found: Vec<(usize, Credentials)> = secrets
        .into_iter()
        .flat_map(entries)
        .filter_map(|(key, entry)| {
            let key = plain(&key);
            matches(&key, &place).then(|| Some((key.len(), credentials(&key, &entry)?)))?
        })
        .collect();
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, credentials)| credentials).collect()
}

/// The registries of a secret, each with its entry.
fn entries(secret: &Secret) -> Map<String, Value> {
    let data = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        serde_json::from_slice::<Value>(bytes).ok()
    };
    let list = data(".dockerconfigjson")
        .and_then(|mut config| config.get_mut("auths").map(Value::take))
        .or_else(|| data(".dockercfg"));
    match list {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    }
}

fn credentials(registry: &str, entry: &Value) -> Option<Credentials> {
    let text =
        |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut user, mut password) = (text("username"), text("password"));
    let joined = STANDARD.decode(text("auth").trim()).ok();
    if let Some(joined) = joined.and_then(|joined| String::from_utf8(joined).ok())
        && let Some((name, secret)) = joined.split_once(':')
    {
        name.clone_into(&mut user);
        secret.trim_end_matches('\0').clone_into(&mut password);
    }
    let token = text("identitytoken");
    let is_empty = user.is_empty() && password.is_empty() && token.is_empty();
    (!is_empty).then(|| Credentials {
        server: registry.to_owned(),
        user,
        password,
        identity_token: token,
    })
}

/// Host and path of an image, without tag and digest.
fn place(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        Some(_) => ("docker.io", name),
        None => return format!("docker.io/library/{}", without_tag(name)),
    };
    format!("{}/{}", hub(host), without_tag(path))
}

fn without_tag(path: &str) -> &str {
    let last = path.rfind('/').map_or(0, |at| at + 1);
    path[last..].find(':').map_or(path, |at| &path[..last + at])
}

fn hub(host: &str) -> &str {
    if HUB.contains(&host) { "docker.io" } else { host }
}

/// A registry as places name it: Docker writes addresses with a scheme and a version.
fn plain(key: &str) -> String {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = key.trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = match path {
        "v1" | "v2" => "",
        path => path,
    };
    if path.is_empty() { hub(host).to_owned() } else { format!("{}/{path}", hub(host)) }
}

/// Whether a registry, perhaps with a path, is that of the place. Each part of its host may have
/// wildcards.
fn matches(key: &str, place: &str) -> bool {
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let (own_host, own_path) = place.split_once('/').unwrap_or((place, ""));
    let parts: Vec<&str> = host.split('.').collect();
    let own: Vec<&str> = own_host.split('.').collect();
    let same_host =
        parts.len() == own.len() && parts.iter().zip(&own).all(|(part, own)| glob(part, own));
    let below = own_path.strip_prefix(path);
    same_host
        && below.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

fn glob(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(auths: &Value) -> Secret {
        let config = STANDARD.encode(json!({ "auths": auths }).to_string());
        serde_json::from_value(json!({ "data": { ".dockerconfigjson": config } })).unwrap()
    }

    fn users(auths: &Value, image: &str) -> Vec<String> {
        for_image([&secret(auths)], image).into_iter().map(|found| found.user).collect()
    }

    #[test]
    fn a_registry_is_found_by_its_host_and_the_most_specific_path_goes_first() {
        let auths = json!({
            "https://index.docker.io/v1/": { "auth": STANDARD.encode("hub:p") },
            "example.com:5000": { "username": "all", "password": "p" },
            "example.com:5000/team": { "username": "team", "password": "p" },
            "*.example.org": { "username": "wild", "password": "p" },
            "empty.example": {},
        });
        for (image, expected) in [
            ("busybox", vec!["hub"]),
            ("library/busybox:1", vec!["hub"]),
            ("docker.io/a/b@sha256:x", vec!["hub"]),
            ("example.com:5000/team/app:1", vec!["team", "all"]),
            ("example.com:5000/teams/app:1", vec!["all"]),
            ("example.com/team/app", vec![]),
            ("a.example.org/x", vec!["wild"]),
            ("a.b.example.org/x", vec![]),
            ("empty.example/x", vec![]),
        ] {
            assert_eq!(users(&auths, image), expected, "{image}");
        }
    }

    #[test]
    fn passwords_may_contain_colons_and_the_older_format_is_read() {
        let older = STANDARD
            .encode(json!({ "example.com": { "auth": STANDARD.encode("ann:a:b") } }).to_string());
        let secret: Secret =
            serde_json::from_value(json!({ "data": { ".dockercfg": older } })).unwrap();
        let found = for_image([&secret], "example.com/x");
        assert_eq!((found[0].user.as_str(), found[0].password.as_str()), ("ann", "a:b"));
    }
}
