//! What a container's environment and command are made of.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cases;
use crate::pods::main_of;
use crate::world::{World, name_of, same};

cases! {
    "[sig-node] ConfigMap should be consumable via environment variable [NodeConformance] [Conformance]"
        => config_map_variable,
    "[sig-node] ConfigMap should be consumable via the environment [NodeConformance] [Conformance]"
        => config_map_environment,
    "[sig-node] Secrets should be consumable from pods in env vars [NodeConformance] [Conformance]"
        => secret_variable,
    "[sig-node] Secrets should be consumable via the environment [NodeConformance] [Conformance]"
        => secret_environment,
    "[sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars [NodeConformance] [Conformance]"
        => resources,
    "[sig-node] Downward API should provide default limits.cpu/memory from node allocatable [NodeConformance] [Conformance]"
        => default_limits,
    "[sig-node] Downward API should provide host IP as an env var [NodeConformance] [Conformance]"
        => host_address,
    "[sig-node] Downward API should provide pod UID as env vars [NodeConformance] [Conformance]"
        => uid,
    "[sig-node] Downward API should provide pod name, namespace and IP address as env vars [NodeConformance] [Conformance]"
        => name_and_address,
    "[sig-node] Variable Expansion should allow composing env vars into new env vars [NodeConformance] [Conformance]"
        => composed,
    "[sig-node] Variable Expansion should allow substituting values in a container's args [NodeConformance] [Conformance]"
        => expanded_arguments,
    "[sig-node] Variable Expansion should allow substituting values in a container's command [NodeConformance] [Conformance]"
        => expanded_command,
    "[sig-node] Pods should contain environment variables for services [NodeConformance] [Conformance]"
        => services,
}

async fn config_map_variable(world: World) -> Result<()> {
    world.config_map("config", json!({"data-1": "value-1", "data-2": "value-2"})).await?;
    let source = json!({"configMapKeyRef": {"name": "config", "key": "data-1"}});
    let pod = world.env_pod("env", json!([{"name": "CONFIG_DATA_1", "valueFrom": source}]));
    world.says(&pod, &["CONFIG_DATA_1=value-1"]).await
}

async fn secret_variable(world: World) -> Result<()> {
    world.secret("secret", json!({"data-1": "value-1", "data-2": "value-2"})).await?;
    let source = json!({"secretKeyRef": {"name": "secret", "key": "data-1"}});
    let pod = world.env_pod("env", json!([{"name": "SECRET_DATA", "valueFrom": source}]));
    world.says(&pod, &["SECRET_DATA=value-1"]).await
}

/// Everything a source has, once as it is called there and once behind a prefix.
async fn all_of(world: &World, source: &str, name: &str) -> Result<()> {
    let mut pod = world.pod("env", &["/bin/env"]);
    main_of(&mut pod)["envFrom"] =
        json!([{source: {"name": name}}, {"prefix": "p-", source: {"name": name}}]);
    let lines = ["data_1=value-1", "data_2=value-2", "p-data_1=value-1", "p-data_2=value-2"];
    world.says(&pod, &lines).await
}

async fn config_map_environment(world: World) -> Result<()> {
    world.config_map("config", json!({"data_1": "value-1", "data_2": "value-2"})).await?;
    all_of(&world, "configMapRef", "config").await
}

async fn secret_environment(world: World) -> Result<()> {
    world.secret("secret", json!({"data_1": "value-1", "data_2": "value-2"})).await?;
    all_of(&world, "secretRef", "secret").await
}

/// Variables from the resources of the container itself.
fn resource_variables(pairs: &[(&str, &str)]) -> Value {
    let variable = |(name, resource): &(&str, &str)| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}});
    pairs.iter().map(variable).collect()
}

/// Variables from fields of the pod.
fn field_variables(pairs: &[(&str, &str)]) -> Value {
    let variable = |(name, path): &(&str, &str)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    pairs.iter().map(variable).collect()
}

async fn resources(world: World) -> Result<()> {
    let mut env = resource_variables(&[
        ("CPU_LIMIT", "limits.cpu"),
        ("MEMORY_LIMIT", "limits.memory"),
        ("CPU_REQUEST", "requests.cpu"),
        ("MEMORY_REQUEST", "requests.memory"),
    ]);
    env.as_array_mut().context("variables")?.push(json!({
        "name": "CPU_MILLIS",
        "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}},
    }));
    let mut pod = world.env_pod("env", env);
    main_of(&mut pod)["resources"] = json!({
        "requests": {"cpu": "250m", "memory": "32Mi"},
        "limits": {"cpu": "1250m", "memory": "64Mi"},
    });
    let lines = [
        "CPU_LIMIT=2",
        "MEMORY_LIMIT=67108864",
        "CPU_REQUEST=1",
        "MEMORY_REQUEST=33554432",
        "CPU_MILLIS=250",
    ];
    world.says(&pod, &lines).await
}

/// A quantity as whole units, rounded up; only what nodes report.
fn whole(quantity: &Value) -> Result<u64> {
    let text = quantity.as_str().context("a quantity is a string")?;
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let number: u64 = digits.parse().with_context(|| format!("quantity {text:?}"))?;
    Ok(match &text[digits.len()..] {
        "" => number,
        "m" => number.div_ceil(1000),
        "Ki" => number << 10,
        "Mi" => number << 20,
        "Gi" => number << 30,
        "k" => number * 1000,
        "M" => number * 1_000_000,
        other => bail!("quantity {text:?} ends with {other:?}"),
    })
}

async fn default_limits(world: World) -> Result<()> {
    let pod = world.env_pod(
        "env",
        resource_variables(&[("CPU_LIMIT", "limits.cpu"), ("MEMORY_LIMIT", "limits.memory")]),
    );
    let output = world.output(&pod).await?;
    let pod = world.api.get(&world.pod_path("env")).await?;
    let node = pod["spec"]["nodeName"].as_str().context("it ran on a node")?;
    let node = world.api.get(&world.global("v1", "nodes", node)).await?;
    let allocatable = &node["status"]["allocatable"];
    for (name, resource) in [("CPU_LIMIT", "cpu"), ("MEMORY_LIMIT", "memory")] {
        let line = format!("{name}={}", whole(&allocatable[resource])?);
        if !output.lines().any(|said| said == line) {
            bail!("expected {line}: {output}");
        }
    }
    Ok(())
}

/// Runs a pod that prints fields of its own, and compares them with what the API then says.
async fn shown(world: &World, fields: &[(&str, &str)]) -> Result<()> {
    let output = world.output(&world.env_pod("env", field_variables(fields))).await?;
    let pod = world.api.get(&world.pod_path("env")).await?;
    for (name, path) in fields {
        let pointer = format!("/{}", path.replace('.', "/"));
        let value = pod.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
        let line = format!("{name}={value}");
        if value.is_empty() || !output.lines().any(|said| said == line) {
            bail!("expected {line}: {output}");
        }
    }
    Ok(())
}

async fn host_address(world: World) -> Result<()> {
    shown(&world, &[("HOST_IP", "status.hostIP")]).await
}

async fn uid(world: World) -> Result<()> {
    shown(&world, &[("POD_UID", "metadata.uid")]).await
}

async fn name_and_address(world: World) -> Result<()> {
    let fields = [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_IP", "status.podIP"),
    ];
    shown(&world, &fields).await
}

async fn composed(world: World) -> Result<()> {
    let env = json!([
        {"name": "FOO", "value": "foo-value"},
        {"name": "BAR", "value": "bar-value"},
        {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"},
        {"name": "ESCAPED", "value": "$$(FOO)"},
        {"name": "UNKNOWN", "value": "$(NOBODY)"},
    ]);
    let lines = [
        "FOO=foo-value",
        "BAR=bar-value",
        "FOOBAR=foo-value;;bar-value",
        "ESCAPED=$(FOO)",
        "UNKNOWN=$(NOBODY)",
    ];
    world.says(&world.env_pod("env", env), &lines).await
}

async fn expanded_arguments(world: World) -> Result<()> {
    let mut pod = world.pod("expanded", &["/bin/echo"]);
    main_of(&mut pod)["args"] = json!(["$(TEST_VAR)", "$$(TEST_VAR)"]);
    main_of(&mut pod)["env"] = json!([{"name": "TEST_VAR", "value": "test-value"}]);
    world.says(&pod, &["test-value $(TEST_VAR)"]).await
}

async fn expanded_command(world: World) -> Result<()> {
    let mut pod = world.pod("expanded", &["/bin/$(PROGRAM)", "said: $(TEST_VAR)"]);
    main_of(&mut pod)["env"] = json!([
        {"name": "TEST_VAR", "value": "test-value"},
        {"name": "PROGRAM", "value": "echo"},
    ]);
    world.says(&pod, &["said: test-value"]).await
}

async fn services(world: World) -> Result<()> {
    let service = json!({
        "metadata": {"name": "fooservice"},
        "spec": {
            "selector": {"name": "server"},
            "ports": [{"port": 8765, "targetPort": 8080}],
        },
    });
    let service = world.create("v1", "services", &service).await?;
    let address = service["spec"]["clusterIP"].as_str().context("it has an address")?;
    let expected = [
        format!("FOOSERVICE_SERVICE_HOST={address}"),
        "FOOSERVICE_SERVICE_PORT=8765".to_owned(),
        format!("FOOSERVICE_PORT=tcp://{address}:8765"),
        "FOOSERVICE_PORT_8765_TCP_PORT=8765".to_owned(),
        "FOOSERVICE_PORT_8765_TCP_PROTO=tcp".to_owned(),
        format!("FOOSERVICE_PORT_8765_TCP=tcp://{address}:8765"),
        format!("FOOSERVICE_PORT_8765_TCP_ADDR={address}"),
    ];
    let lines: Vec<&str> = expected.iter().map(String::as_str).collect();
    // A node may hear of the Service a little later than of the pod.
    let mut last = Ok(());
    for attempt in 0..4 {
        let pod = world.env_pod(&format!("client-{attempt}"), json!([]));
        last = world.says(&pod, &lines).await;
        if last.is_ok() {
            let ran = world.api.get(&world.pod_path(name_of(&pod))).await?;
            return same("enableServiceLinks", &ran["spec"]["enableServiceLinks"], &json!(true));
        }
    }
    last
}
