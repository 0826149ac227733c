//! Real processes on real disks: three servers under `kontiki up`, killed, paused, started again.
//! Each test is one story, told from the start of a cluster to its end.

use std::collections::BTreeMap;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use kontiki_tests::server::Server;
use kontiki_tests::up::{self, Up};
use kontiki_tests::wait;
use kontiki_tests::{ports, requirements};
use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

/// Three servers, and no pods: what needs no root.
const SERVERS: &[&str] = &["--servers", "3", "--agents", "0", "--runtime", "none"];

#[test]
fn a_cluster_comes_back_with_its_objects_after_ctrl_c() {
    if !requirements::met(&["kubectl"], false) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder must be had");
    let data_dir = folder.path().join("data");

    let mut first = Up::start_in(&data_dir, SERVERS);
    assert!(first.ready.starts_with("ready: 3 servers"), "{}", first.ready);
    let kubectl = first.kubectl();
    kubectl.ok(&["create", "configmap", "kept", "--from-literal=raft=balsa"]);
    let before = kubectl.json(&["get", "configmap", "kept"]);
    let processes = first.cluster().servers;
    first.interrupt();
    for server in &processes {
        let pid = Pid::from_raw(server.pid).expect("cluster.json must have process ids");
        assert!(test_kill_process(pid).is_err(), "{} must be gone", server.name);
    }

    let second = Up::start_in(&data_dir, SERVERS);
    let after = second.kubectl().json(&["get", "configmap", "kept"]);
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    assert_eq!(after["data"]["raft"], "balsa");
}

#[test]
fn a_cluster_begins_anew_from_what_etcdctl_has_saved() {
    if !requirements::met(&["etcdctl"], false) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder must be had");
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let file = folder.path().join("saved.db");
    let server = Server::start(&old);
    server.put("before", "kept").expect("it must serve");
    let file_name = file.to_str().expect("its name must be text");
    server.etcdctl(&["snapshot", "save", file_name]).expect("etcdctl must save a snapshot");
    server.put("after", "not in it").expect("it must serve");
    server.stop();

    let snapshot = |arguments: &[&str]| {
        let mut kontiki = Command::new(up::binary());
        let output = kontiki.arg("snapshot").args(arguments).output().expect("it must start");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (is_whole, said) = snapshot(&["verify", file_name]);
    assert!(is_whole && said.contains("is whole"), "{said}");
    let data_dir = new.to_str().expect("its name must be text");
    let from = old.to_str().expect("its name must be text");
    let restore = ["restore", file_name, "--data-dir", data_dir, "--authorities-from", from];
    let (is_restored, said) = snapshot(&restore);
    assert!(is_restored && said.contains("begins at revision 1000000"), "{said}");
    let (again, said) = snapshot(&restore);
    assert!(!again && said.contains("belongs to a member already"), "{said}");

    let server = Server::start(&new);
    assert_eq!(server.get("before").as_deref(), Ok("kept"));
    assert_eq!(server.get("after").as_deref(), Ok(""));
    let old = server.etcdctl(&["get", "before", "--rev=2"]).expect_err("the past is gone");
    assert!(old.contains("required revision has been compacted"), "{old}");
    let members = server.etcdctl(&["member", "list"]).expect("it must serve");
    assert!(members.contains(&format!("127.0.0.1:{}", server.ports[1])), "{members}");
}

#[test]
fn a_server_of_the_store_alone_is_an_etcd_with_nothing_in_it_and_without_kubernetes() {
    if !requirements::met(&["etcdctl"], false) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder must be had");
    let server = Server::start_with(folder.path(), &["--init", "--store-only"]);
    let count = server.etcdctl(&["get", "", "--prefix", "--keys-only", "-w", "json"]);
    let count: Value = serde_json::from_str(&count.expect("it must serve")).expect("it is JSON");
    assert_eq!(count["count"], 1, "only what the harness has put: {count}");
    assert_eq!(count["header"]["revision"], 2);
    let ask = |path: &str| {
        let url = format!("https://127.0.0.1:{}{path}", server.ports[0]);
        let curl = ["-sk", "-o", "/dev/null", "-w", "%{http_code}", &url];
        let output = Command::new("curl").args(curl).output().expect("curl must start");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    if requirements::met(&["curl"], false) {
        assert_eq!(ask("/livez"), "200");
        assert_ne!(ask("/api/v1/namespaces"), "200");
    }
}

#[test]
fn the_items_of_the_benchmark_hold_but_for_those_that_the_operator_has_to_configure() {
    let up = Up::start(SERVERS);
    let verdicts = || -> BTreeMap<String, String> {
        let checked = up.kontiki(&["check", "-o", "json"]);
        let said: Value = serde_json::from_slice(&checked.stdout).expect("it must say JSON");
        let findings = said["findings"].as_array().expect("there must be findings");
        let text =
            |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        findings.iter().map(|one| (text(one, "id"), text(one, "verdict"))).collect()
    };
    up.kubectl().ok(&["create", "secret", "generic", "looked-at", "--from-literal=raft=balsa"]);
    let found = verdicts();
    let failed: Vec<&str> =
        found.iter().filter(|(_, verdict)| *verdict == "FAIL").map(|(id, _)| &**id).collect();
    assert_eq!(
        failed,
        ["1.2.16", "1.2.17", "1.2.18", "1.2.19", "3.2.1"],
        "no audit log is asked for"
    );
    for tried in
        ["1.1.11", "1.2.6", "1.2.7", "1.2.8", "1.2.12", "1.2.13", "1.2.27", "1.2.29", "2.5"]
    {
        assert_eq!(found[tried], "PASS", "{tried}");
    }

    let kubeconfig = up.data_dir.join("kubeconfig");
    set_permissions(&kubeconfig, Permissions::from_mode(0o644)).expect("it must be ours");
    assert_eq!(verdicts()["1.1.13"], "FAIL", "everybody can be the administrator");
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    use std::process::Stdio;
    let mut version = Command::new(up::binary());
    let (reader, writer) = std::io::pipe().expect("a pipe must be had");
    drop(reader);
    let output = version.arg("version").stdout(writer).stderr(Stdio::piped()).output();
    let output = output.expect("kontiki must start");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}

#[test]
fn leaders_killed_again_and_again_lose_nothing() {
    let up = Up::start(SERVERS);
    let chaos = up.kontiki(&["chaos", "leader-kill", "--count", "3", "--interval", "2"]);
    let printed = String::from_utf8_lossy(&chaos.stdout);
    let complaint = String::from_utf8_lossy(&chaos.stderr);
    assert!(chaos.status.success(), "{printed}{complaint}");
    all_members_agree(&up);
}

#[test]
fn every_fault_in_turn_breaks_no_promise() {
    if !requirements::met(&["nft", "strace"], true) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder must be had");
    let history = folder.path().join("history.jsonl");
    let base_port = ports::free().to_string();
    let chaos = Command::new(up::binary())
        .args(["chaos", "all", "--count", "10", "--interval", "0.5", "--hold", "1.5"])
        .args(["--base-port", &base_port, "-o", "json", "--history"])
        .arg(&history)
        .output()
        .expect("kontiki must start");
    let printed = String::from_utf8_lossy(&chaos.stdout);
    let complaint = String::from_utf8_lossy(&chaos.stderr);
    assert!(chaos.status.success(), "{printed}{complaint}");
    let outcome: Value = serde_json::from_str(&printed).expect("it must be JSON");
    let faults = outcome["faults"].as_array().expect("it must name its faults");
    assert_eq!(faults.len(), 10, "{printed}");
    assert!(faults.iter().all(|fault| fault["first_write_ms"].is_number()), "{printed}");
    assert!(history.with_extension("svg").exists(), "the picture must be there");
    assert!(history.exists(), "the history must be there");
}

#[test]
fn a_killed_server_is_started_again_and_catches_up() {
    if !requirements::met(&["kubectl"], false) {
        return;
    }
    let up = Up::start(SERVERS);
    let kubectl = up.kubectl();
    let killed = up.leader();
    up::signal(&killed, Signal::KILL);
    wait::until("a write after the kill", Duration::from_secs(10), || {
        kubectl.attempt(&["create", "configmap", "after-the-kill"])
    });
    wait::until("the killed server under a new process id", Duration::from_secs(20), || {
        let now = up.cluster().servers.into_iter().find(|server| server.name == killed.name);
        now.filter(|server| server.pid != killed.pid).ok_or_else(|| "the old id".to_owned())
    });
    all_members_agree(&up);
}

#[test]
fn a_paused_leader_is_replaced_and_serves_nothing_stale_when_it_wakes() {
    if !requirements::met(&["kubectl"], false) {
        return;
    }
    let up = Up::start(SERVERS);
    let kubectl = up.kubectl();
    kubectl.ok(&["create", "configmap", "paused", "--from-literal=step=before"]);
    let paused = up.leader();
    up::signal(&paused, Signal::STOP);
    wait::until("a write past the paused leader", Duration::from_secs(15), || {
        let patch = r#"{"data":{"step":"while-paused"}}"#;
        let arguments = ["patch", "configmap", "paused", "--type=merge", "-p", patch];
        kubectl.attempt(&[&arguments[..], &["--request-timeout=3s"]].concat())
    });
    up::signal(&paused, Signal::CONT);
    for _ in 0..20 {
        let step = kubectl.ok(&["get", "configmap", "paused", "-o", "jsonpath={.data.step}"]);
        assert_eq!(step, "while-paused", "a read must see what was acknowledged before it (R4)");
    }
    all_members_agree(&up);
}

/// R6: at one common revision all three have one hash.
fn all_members_agree(up: &Up) {
    wait::until("three members with equal state", Duration::from_secs(30), || {
        let status = up.status()?;
        let servers = status["servers"].as_array().ok_or_else(|| status.to_string())?;
        let seen: Vec<_> = servers
            .iter()
            .filter(|server| server["revision"].is_u64() && !server["hash"].is_null())
            .map(|server| (server["revision"].clone(), server["hash"].clone()))
            .collect();
        let equal = seen.windows(2).all(|pair| pair[0] == pair[1]);
        (seen.len() == 3 && equal).then_some(()).ok_or_else(|| format!("{seen:?}"))
    });
}
