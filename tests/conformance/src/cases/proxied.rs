//! Requests that the API server leads on to pods and Services.

use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use super::services_support::{endpoints_are, server_of, service};
use crate::api::Answer;
use crate::cases;
use crate::world::{World, holds, same};

cases! {
    "[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service Proxy [Conformance]"
        => by_query,
    "[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath [Conformance]"
        => by_path,
    "[sig-network] Proxy version v1 should proxy through a service and a pod [Conformance]"
        => by_names,
}

/// Answers any request at port 8080 with its method and what it asks for.
const TELLS: &str = r#"
mkdir -p /tmp/bin
cat > /tmp/bin/answer << 'END'
#!/bin/sh
read -r method target version
while read -r header && [ "${#header}" -gt 1 ]; do :; done
printf 'HTTP/1.1 200 OK\r\nX-Method: %s\r\nX-Target: %s\r\nContent-Length: %s\r\nConnection: close\r\n\r\n' \
  "$method" "$target" "$((${#method} + ${#target} + 2))"
[ "$method" = HEAD ] || printf '%s %s\n' "$method" "$target"
sleep 1
END
/bin/busybox chmod +x /tmp/bin/answer
exec /bin/busybox nc -ll -p 8080 -e /tmp/bin/answer
"#;

/// A pod that tells, and a Service over it, both named `porter`.
async fn porter(world: &World) -> Result<[String; 2]> {
    let mut pod = server_of(world, "porter", "porter");
    pod["spec"]["containers"][0]["command"][2] = json!(TELLS);
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 8080}});
    let mut service = service("porter", "porter");
    // Whoever names no port means the one without a name.
    service["spec"]["ports"] = json!([{"port": 80, "targetPort": 8080}]);
    world.create("v1", "services", &service).await?;
    world.run(&pod).await?;
    endpoints_are(world, "porter", &["porter"]).await?;
    Ok([
        format!("{}/proxy", world.pod_path("porter")),
        format!("{}/proxy", world.path("v1", "services", "porter")),
    ])
}

fn methods() -> [Method; 7] {
    [
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
    ]
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Sends each method, and expects the porter to be asked for `target` by it.
async fn each_method(world: &World, path: &str, target: &str) -> Result<()> {
    for method in methods() {
        let answer = world.api.send(method.clone(), path, &[], None).await?;
        let told = json!([answer.code, header(&answer, "x-method"), header(&answer, "x-target")]);
        let what = format!("{method} {path}: {}", answer.text());
        same(&what, &told, &json!([200, method.as_str(), target]))?;
        let body =
            if method == Method::HEAD { String::new() } else { format!("{method} {target}") };
        same("body", &json!(answer.text().trim()), &json!(body))?;
    }
    Ok(())
}

async fn by_query(world: World) -> Result<()> {
    for proxy in porter(&world).await? {
        each_method(&world, &format!("{proxy}/?method=any"), "/?method=any").await?;
        // Without the slash, what is relative on a page would lead astray: such readers are sent on.
        for method in [Method::GET, Method::HEAD] {
            let answer = world.api.send(method, &proxy, &[], None).await?;
            let onward = header(&answer, "location").ends_with("/proxy/");
            holds("sent on", answer.code == 301 && onward, &json!(format!("{answer:?}")))?;
        }
        let answer = world.api.send(Method::POST, &proxy, &[], None).await?;
        same("POST is not sent on", &json!(answer.code), &json!(200))?;
    }
    Ok(())
}

async fn by_path(world: World) -> Result<()> {
    for proxy in porter(&world).await? {
        let target = "/some/path/with/word?and=query";
        each_method(&world, &format!("{proxy}{target}"), target).await?;
    }
    Ok(())
}

/// Waits until what is at `path` says `expected`.
async fn says(world: &World, path: &str, expected: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let now = world.api.text(path).await;
        if now.as_ref().is_ok_and(|said| said.trim() == expected) {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("{path}: expected {expected:?}, found {now:?}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// One pod with two servers, which a Service with two ports leads to by names and numbers.
async fn by_names(world: World) -> Result<()> {
    let mut pod = server_of(&world, "two", "two");
    let second = pod["spec"]["containers"][0].clone();
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.push(second);
    }
    let page = |port: u16, word: &str| {
        json!(format!(
            "mkdir -p /tmp/www && echo {word} > /tmp/www/index.html && exec httpd -f -p {port} -h /tmp/www"
        ))
    };
    let second: &mut Value = &mut pod["spec"]["containers"][1];
    second["name"] = json!("second");
    second["ports"] = json!([{"containerPort": 8081, "name": "dest2"}]);
    second["readinessProbe"]["httpGet"]["port"] = json!(8081);
    second["command"][2] = page(8081, "second");
    pod["spec"]["containers"][0]["command"][2] = page(8080, "first");
    pod["spec"]["containers"][0]["ports"][0]["name"] = json!("dest1");
    let mut object = service("two", "two");
    object["spec"]["ports"] = json!([
        {"name": "portname1", "port": 80, "targetPort": "dest1"},
        {"name": "portname2", "port": 81, "targetPort": 8081},
    ]);
    world.create("v1", "services", &object).await?;
    world.run(&pod).await?;
    endpoints_are(&world, "two", &["two"]).await?;
    let way = |plural, name: &str| format!("{}/proxy/", world.path("v1", plural, name));
    for (name, expected) in [
        ("two:portname1", "first"),
        ("two:portname2", "second"),
        ("two:80", "first"),
        ("two:81", "second"),
        ("http:two:portname1", "first"),
        ("http:two:portname2", "second"),
    ] {
        says(&world, &way("services", name), expected).await?;
    }
    for (name, expected) in [
        ("two", "first"),
        ("two:8080", "first"),
        ("two:8081", "second"),
        ("http:two:8080", "first"),
        ("http:two:8081", "second"),
    ] {
        says(&world, &way("pods", name), expected).await?;
    }
    // Busybox serves no TLS; the API server itself does.
    let api = world.path_in("default", "v1", "services", "https:kubernetes:https/proxy/version");
    let version = world.api.get(&api).await?;
    same("through TLS", &version, &world.api.get("/version").await?)
}
