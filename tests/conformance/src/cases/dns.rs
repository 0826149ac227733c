//! Names of Services and pods.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::services_support::{client, client_says, server_of, servers, service, text};
use crate::api::Patch;
use crate::cases;
use crate::world::{World, same};

cases! {
    "[sig-network] DNS should provide DNS for the cluster [Conformance]"
        => cluster,
    "[sig-network] DNS should provide /etc/hosts entries for the cluster [Conformance]"
        => hosts_file,
    "[sig-network] DNS should provide DNS for services [Conformance]"
        => services,
    "[sig-network] DNS should resolve DNS of partial qualified names for services [LinuxOnly] [Conformance]"
        => partial_names,
    "[sig-network] DNS should provide DNS for pods for Hostname [Conformance]"
        => pod_names,
    "[sig-network] DNS should provide DNS for pods for Subdomain [Conformance]"
        => pod_names,
    "[sig-network] DNS should provide DNS for ExternalName services [Conformance]"
        => external_name,
    "[sig-network] DNS should support configurable pod DNS nameservers [Conformance]"
        => own_nameservers,
}

fn headless(name: &str, app: &str) -> Value {
    let mut object = service(name, app);
    object["spec"]["clusterIP"] = json!("None");
    object
}

/// Waits until the client is told `answer` when it asks for records of that type.
async fn record(world: &World, kind: &str, name: &str, answer: &str) -> Result<()> {
    let script = format!("/bin/busybox nslookup -type={kind} {name}");
    let answers = |said: &str| {
        // What comes first says whom it asked.
        said.split_once("\n\n").is_some_and(|(_, told)| told.contains(answer))
    };
    client_says(world, "the record", &script, answers).await?;
    Ok(())
}

/// Waits until the client's resolver finds `address` for a name that may be short.
async fn resolved(world: &World, name: &str, address: &str) -> Result<()> {
    let script = format!("/bin/busybox ping -c 1 -W 1 {name} 2>&1; true");
    let expected = format!("({address})");
    let first = |said: &str| said.lines().next().is_some_and(|line| line.contains(&expected));
    client_says(world, "the address", &script, first).await?;
    Ok(())
}

/// A query for the address of `name`, with its length before it as TCP wants it, for printf.
fn query(name: &str) -> String {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    let length = u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
    length.iter().chain(&bytes).fold(String::new(), |text, byte| text + &format!("\\{byte:03o}"))
}

async fn cluster(world: World) -> Result<()> {
    client(&world).await?;
    let api = world.api.get(&world.path_in("default", "v1", "services", "kubernetes")).await?;
    let address = text(&api, "/spec/clusterIP")?;
    let name = "kubernetes.default.svc.cluster.local";
    record(&world, "a", name, &format!("Address: {address}\n")).await?;
    resolved(&world, "kubernetes.default", address).await?;
    // The same over TCP: the answer ends with the address's four bytes.
    let bytes: Vec<String> = address
        .split('.')
        .map(|part| Ok(format!("{:02x}", part.parse::<u8>()?)))
        .collect::<Result<_>>()?;
    let script = format!(
        "server=$(/bin/busybox awk '$1 == \"nameserver\" {{print $2; exit}}' /etc/resolv.conf); \
         (printf '{}'; sleep 1) | /bin/busybox timeout 5 nc $server 53 | /bin/busybox xxd -p -c 256",
        query(name)
    );
    let bytes = bytes.concat();
    client_says(&world, "an answer over TCP", &script, |said| said.contains(&bytes)).await?;
    Ok(())
}

/// A pod whose name in the cluster is that of its host name in a subdomain.
fn named(world: &World, name: &str) -> Value {
    let mut pod = server_of(world, name, "web");
    pod["spec"]["hostname"] = json!("first");
    pod["spec"]["subdomain"] = json!("group");
    pod
}

async fn hosts_file(world: World) -> Result<()> {
    world.create("v1", "services", &headless("group", "web")).await?;
    let mut pod = named(&world, "client");
    pod["spec"]["containers"][0]["command"][2] =
        world.sleeper("x")["spec"]["containers"][0]["command"][2].clone();
    if let Some(container) = pod["spec"]["containers"][0].as_object_mut() {
        container.remove("readinessProbe");
    }
    let pod = world.run(&pod).await?;
    let address = text(&pod, "/status/podIP")?;
    let full = format!("first.group.{}.svc.cluster.local", world.ns);
    let line = format!("{address} {full} first");
    let script = "/bin/busybox sed 's/[[:space:]][[:space:]]*/ /g' /etc/hosts";
    client_says(&world, "the pod's line", script, |said| {
        said.lines().any(|found| found.trim() == line)
            && said.lines().any(|found| found.trim().starts_with("127.0.0.1 localhost"))
    })
    .await?;
    resolved(&world, "first", address).await?;
    resolved(&world, &full, address).await
}

async fn services(world: World) -> Result<()> {
    world.create("v1", "services", &headless("group", "web")).await?;
    let made = world.create("v1", "services", &service("web", "web")).await?;
    servers(&world, "web", 1).await?;
    let pod = world.api.get(&world.pod_path("web-0")).await?;
    client(&world).await?;
    let domain = format!("{}.svc.cluster.local", world.ns);
    let (address, pod) = (text(&made, "/spec/clusterIP")?, text(&pod, "/status/podIP")?);
    record(&world, "a", &format!("web.{domain}"), &format!("Address: {address}\n")).await?;
    record(&world, "a", &format!("group.{domain}"), &format!("Address: {pod}\n")).await?;
    let port = format!("80 web.{domain}");
    record(&world, "srv", &format!("_http._tcp.web.{domain}"), &port).await?;
    let port = format!(" 8080 {}.group.{domain}", pod.replace('.', "-"));
    record(&world, "srv", &format!("_http._tcp.group.{domain}"), &port).await?;
    record(&world, "ptr", &reversed(address), &format!("web.{domain}")).await?;
    record(&world, "ptr", &reversed(pod), &format!(".group.{domain}")).await
}

fn reversed(address: &str) -> String {
    let parts: Vec<&str> = address.rsplit('.').collect();
    format!("{}.in-addr.arpa", parts.join("."))
}

async fn partial_names(world: World) -> Result<()> {
    world.create("v1", "services", &headless("group", "web")).await?;
    let made = world.create("v1", "services", &service("web", "web")).await?;
    servers(&world, "web", 1).await?;
    let pod = world.api.get(&world.pod_path("web-0")).await?;
    client(&world).await?;
    let (address, pod) = (text(&made, "/spec/clusterIP")?, text(&pod, "/status/podIP")?);
    for (name, address) in [("web", address), ("group", pod)] {
        resolved(&world, name, address).await?;
        resolved(&world, &format!("{name}.{}", world.ns), address).await?;
        resolved(&world, &format!("{name}.{}.svc", world.ns), address).await?;
        // Busybox asks for such records only by full names: the shell goes through the domains.
        let script = format!(
            "for domain in $(/bin/busybox sed -n 's/^search //p' /etc/resolv.conf); do \
             /bin/busybox nslookup -type=srv _http._tcp.{name}.{}.svc.$domain; done; true",
            world.ns
        );
        let found = |said: &str| said.contains("service = ");
        client_says(&world, "a record of a partial name", &script, found).await?;
    }
    Ok(())
}

async fn pod_names(world: World) -> Result<()> {
    world.create("v1", "services", &headless("group", "web")).await?;
    let pod = world.run(&named(&world, "server")).await?;
    client(&world).await?;
    let address = format!("Address: {}\n", text(&pod, "/status/podIP")?);
    let domain = format!("group.{}.svc.cluster.local", world.ns);
    record(&world, "a", &format!("first.{domain}"), &address).await?;
    record(&world, "a", &domain, &address).await?;
    resolved(&world, "first.group", text(&pod, "/status/podIP")?).await?;
    let own = world.exec("server", "hostname; cat /etc/hosts").await?;
    same("host name", &json!(own.lines().next()), &json!("first"))?;
    let line = own.lines().find(|line| line.contains(&format!("first.{domain}")));
    let line = line.with_context(|| format!("its own line: {own}"))?;
    same("address", &json!(line.split_whitespace().next()), &pod["status"]["podIP"])
}

async fn external_name(world: World) -> Result<()> {
    let path = world.path("v1", "services", "elsewhere");
    let external = |name: &str| json!({"type": "ExternalName", "externalName": name});
    let object = json!({"metadata": {"name": "elsewhere"}, "spec": external("foo.example.com")});
    world.create("v1", "services", &object).await?;
    client(&world).await?;
    let name = format!("elsewhere.{}.svc.cluster.local", world.ns);
    record(&world, "cname", &name, "canonical name = foo.example.com").await?;
    let change = json!({"spec": {"externalName": "bar.example.com"}});
    world.api.patch(&path, Patch::Merge, &change).await?;
    record(&world, "cname", &name, "canonical name = bar.example.com").await?;
    let change = json!({"spec": {
        "type": "ClusterIP", "externalName": null, "ports": [{"port": 80, "name": "http"}],
    }});
    let now = world.api.patch(&path, Patch::Merge, &change).await?;
    let address = text(&now, "/spec/clusterIP")?;
    record(&world, "a", &name, &format!("Address: {address}\n")).await
}

async fn own_nameservers(world: World) -> Result<()> {
    let mut pod = world.shell("own", "cat /etc/resolv.conf");
    pod["spec"]["dnsPolicy"] = json!("None");
    pod["spec"]["dnsConfig"] = json!({
        "nameservers": ["1.1.1.1"],
        "searches": ["resolv.conf.local"],
        "options": [{"name": "ndots", "value": "2"}],
    });
    let said = world.output(&pod).await?;
    let mut lines: Vec<&str> =
        said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let expected = ["nameserver 1.1.1.1", "options ndots:2", "search resolv.conf.local"];
    same("resolv.conf", &json!(lines), &json!(expected))
}
