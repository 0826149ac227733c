//! What a node's agent does around a container: logs, reasons, files it manages, users, sysctls.

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::refused;
use crate::cases;
use crate::pods::{container, main_of};
use crate::world::{POD_WITHIN, World, holds, same};

cases! {
    "[sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs [NodeConformance] [Conformance]"
        => output_in_logs,
    "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete [NodeConformance] [Conformance]"
        => failing_is_deleted,
    "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason [NodeConformance] [Conformance]"
        => failing_has_reason,
    "[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem [LinuxOnly] [NodeConformance] [Conformance]"
        => read_only_root,
    "[sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts [NodeConformance] [Conformance]"
        => host_aliases,
    "[sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file [LinuxOnly] [NodeConformance] [Conformance]"
        => managed_hosts,
    "[sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534 [LinuxOnly] [NodeConformance] [Conformance]"
        => user_nobody,
    "[sig-node] Security Context When creating a pod with privileged should run the container as unprivileged when false [LinuxOnly] [NodeConformance] [Conformance]"
        => unprivileged,
    "[sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false [NodeConformance] [Conformance]"
        => writable_root,
    "[sig-node] Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup [LinuxOnly] [Conformance]"
        => container_user,
    "[sig-node] Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup [LinuxOnly] [Conformance]"
        => pod_user,
    "[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false [LinuxOnly] [NodeConformance] [Conformance]"
        => no_new_privileges,
    "[sig-node] Sysctls [LinuxOnly] [NodeConformance] should support sysctls [MinimumKubeletVersion:1.21] [Environment:NotInUserNS] [Conformance]"
        => sysctls,
    "[sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls [MinimumKubeletVersion:1.21] [Conformance]"
        => invalid_sysctls,
}

async fn output_in_logs(world: World) -> Result<()> {
    let pod = world.shell("talker", "echo Hello World; echo and its errors >&2; sleep 240");
    world.create("v1", "pods", &pod).await?;
    let both = |said: &str| said.contains("Hello World\n") && said.contains("and its errors\n");
    world.wait_logs("talker", "main", "both lines", both).await.map(drop)
}

/// A pod that fails and is started again.
async fn failing(world: &World) -> Result<()> {
    let mut pod = world.shell("fails", "exit 1");
    pod["spec"]["restartPolicy"] = json!("Always");
    world.create("v1", "pods", &pod).await.map(drop)
}

async fn failing_is_deleted(world: World) -> Result<()> {
    failing(&world).await?;
    let path = world.pod_path("fails");
    let failed = |pod: &Value| {
        let main = container(pod, "main");
        !main["state"]["terminated"].is_null() || !main["lastState"]["terminated"].is_null()
    };
    world.wait("it has failed", &path, POD_WITHIN, failed).await?;
    world.api.delete(&path).await?;
    world.wait_gone(&path, POD_WITHIN).await
}

async fn failing_has_reason(world: World) -> Result<()> {
    failing(&world).await?;
    // Between two runs the end may be the present or the last state.
    let reason = |pod: &Value| {
        ["state", "lastState"].iter().any(|state| {
            let end = &container(pod, "main")[*state]["terminated"];
            end["reason"] == "Error" && end["exitCode"] == 1
        })
    };
    let path = world.pod_path("fails");
    let pod = world.wait("it has failed with a reason", &path, POD_WITHIN, reason).await?;
    let count = pod["status"]["containerStatuses"].as_array().map_or(0, Vec::len);
    same("containers", &json!(count), &json!(1))
}

/// Runs a shell under a container's security context, and returns what it says.
async fn secured(world: &World, name: &str, context: Value, script: &str) -> Result<String> {
    let mut pod = world.shell(name, script);
    main_of(&mut pod)["securityContext"] = context;
    world.output(&pod).await
}

const WRITE: &str = "echo checking > /file && echo written || echo refused; cat /file";

async fn read_only_root(world: World) -> Result<()> {
    let context = json!({"readOnlyRootFilesystem": true});
    let said = secured(&world, "root", context, &format!("{WRITE}; true")).await?;
    let is_so = said.contains("refused") && said.contains("Read-only file system");
    holds("it is not written", is_so && !said.contains("written"), &json!(said))
}

async fn writable_root(world: World) -> Result<()> {
    let said = secured(&world, "root", json!({"readOnlyRootFilesystem": false}), WRITE).await?;
    same("output", &json!(said), &json!("written\nchecking\n"))
}

async fn host_aliases(world: World) -> Result<()> {
    let mut pod = world.pod("aliases", &["/bin/cat", "/etc/hosts"]);
    pod["spec"]["hostAliases"] = json!([{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]);
    let said = world.output(&pod).await?;
    let is_so = said
        .lines()
        .any(|line| line.split_whitespace().collect::<Vec<_>>() == ["123.45.67.89", "foo", "bar"]);
    holds("the alias is a line", is_so, &json!(said))
}

/// The first line of what an agent manages.
const MANAGED: &str = "# Kubernetes-managed hosts file.";

async fn managed_hosts(world: World) -> Result<()> {
    let mut pod = world.sleeper("hosts");
    pod["spec"]["volumes"] =
        json!([{"name": "own", "hostPath": {"path": "/etc/hosts", "type": "File"}}]);
    let mut own = main_of(&mut pod).clone();
    own["name"] = json!("own");
    own["volumeMounts"] = json!([{"name": "own", "mountPath": "/etc/hosts"}]);
    let mut other = main_of(&mut pod).clone();
    other["name"] = json!("other");
    if let Some(list) = pod["spec"]["containers"].as_array_mut() {
        list.extend([own, other]);
    }
    let mut host = world.sleeper("host-network");
    host["spec"]["hostNetwork"] = json!(true);
    world.run(&pod).await?;
    world.run(&host).await?;
    for (pod, container, managed) in [
        ("hosts", "main", true),
        ("hosts", "other", true),
        ("hosts", "own", false),
        ("host-network", "main", false),
    ] {
        let words = ["exec", pod, "-c", container, "--", "/bin/cat", "/etc/hosts"];
        let said = world.kubectl(&words).await?;
        let what = format!("{pod}/{container} managed: {managed}");
        holds(&what, said.lines().any(|line| line == MANAGED) == managed, &json!(said))?;
    }
    Ok(())
}

async fn user_nobody(world: World) -> Result<()> {
    let said = secured(&world, "user", json!({"runAsUser": 65534}), "id -u").await?;
    same("user", &json!(said.trim()), &json!("65534"))
}

async fn unprivileged(world: World) -> Result<()> {
    let script = "/bin/busybox ip link add dummy0 type dummy 2>&1; echo code $?";
    let said = secured(&world, "plain", json!({"privileged": false}), script).await?;
    let is_so = said.contains("Operation not permitted") && !said.contains("code 0");
    holds("a network link is not added", is_so, &json!(said))
}

const WHO: &str = "echo $(id -u) $(id -g)";

async fn container_user(world: World) -> Result<()> {
    let mut pod = world.shell("user", WHO);
    pod["spec"]["securityContext"] = json!({"runAsUser": 1});
    main_of(&mut pod)["securityContext"] = json!({"runAsUser": 1001, "runAsGroup": 2002});
    world.says(&pod, &["1001 2002"]).await
}

async fn pod_user(world: World) -> Result<()> {
    let mut pod = world.shell("user", WHO);
    pod["spec"]["securityContext"] = json!({"runAsUser": 1001, "runAsGroup": 2002});
    world.says(&pod, &["1001 2002"]).await
}

/// The kernel is asked whether it would honour a setuid bit: the image has no such program.
async fn no_new_privileges(world: World) -> Result<()> {
    let script = "id; /bin/busybox grep NoNewPrivs /proc/self/status";
    for (name, allowed, flag) in [("refused", false, "1"), ("allowed", true, "0")] {
        let context = json!({"runAsUser": 1000, "allowPrivilegeEscalation": allowed});
        let said = secured(&world, name, context, script).await?;
        holds("the user", said.starts_with("uid=1000"), &json!(said))?;
        let found = said.lines().last().unwrap_or_default().split_whitespace().last();
        same(&format!("NoNewPrivs where {name}"), &json!(found), &json!(flag))?;
    }
    Ok(())
}

async fn sysctls(world: World) -> Result<()> {
    let mut pod = world.pod("sysctl", &["/bin/cat", "/proc/sys/kernel/shm_rmid_forced"]);
    pod["spec"]["securityContext"] =
        json!({"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]});
    world.says(&pod, &["1"]).await
}

async fn invalid_sysctls(world: World) -> Result<()> {
    let sysctls: Vec<Value> = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."]
        .iter()
        .map(|name| json!({"name": name, "value": "100000000"}))
        .collect();
    let mut pod = world.sleeper("sysctl");
    pod["spec"]["securityContext"] = json!({"sysctls": sysctls});
    let status = refused(world.create("v1", "pods", &pod).await, 422, "Invalid")?;
    let message = status["message"].as_str().unwrap_or_default();
    for (name, wrong) in
        [("foo-", true), ("bar..", true), ("safe-and-unsafe", false), ("kernel.shmmax", false)]
    {
        let named = message.contains(&format!("Invalid value: \"{name}\""));
        holds(&format!("{name} is called wrong: {wrong}"), named == wrong, &status)?;
    }
    Ok(())
}
