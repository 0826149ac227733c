//! `kontiki member` on real processes: members are listed, replaced, removed, and a lost cluster is
//! recovered.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use kontiki_tests::server::{Server, command, refused};
use kontiki_tests::up::{self, Up};
use kontiki_tests::{ports, requirements, wait};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const SERVERS: &[&str] = &["--servers", "3", "--agents", "0", "--runtime", "none"];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// The members as `kontiki member list` tells them: number, name, role and state.
fn members(up: &Up) -> Vec<(u64, String, String, String)> {
    let output = up.kontiki(&["member", "list", "-o", "json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    rows(&listed)
}

fn rows(listed: &Value) -> Vec<(u64, String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = listed["members"].as_array().into_iter().flatten();
    members
        .map(|row| {
            let id = row["id"].as_u64().unwrap_or(0);
            (id, text(&row["name"]), text(&row["role"]), text(&row["state"]))
        })
        .collect()
}

fn id_of(up: &Up, name: &str) -> u64 {
    members(up).into_iter().find(|(_, known, ..)| known == name).map_or(0, |(id, ..)| id)
}

fn wait_for_three_voters(up: &Up) {
    wait::until("three voters that run", Duration::from_secs(60), || {
        let now = members(up);
        let votes = |row: &&(u64, String, String, String)| row.2 == "voter" && row.3 == "running";
        if now.len() == 3 && now.iter().filter(votes).count() == 3 {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
}

#[test]
fn a_member_is_rebuilt_by_one_command_whether_it_lives_or_its_files_are_damaged() {
    if !requirements::met(&["kubectl"], false) {
        return;
    }
    let up = Up::start(SERVERS);
    let kubectl = up.kubectl();
    kubectl.ok(&["create", "configmap", "kept", "--from-literal=step=before"]);
    let before = id_of(&up, "server-2");
    let told = ok(up.kontiki(&["member", "replace", "server-2"]));
    let after = id_of(&up, "server-2");
    assert!(after > before, "R8: a new identity: {before}, {after}");
    assert!(told.contains(&format!("server-2 is replaced: member {after} votes")), "{told}");

    let damaged = up.cluster().servers.remove(2);
    let before = id_of(&up, "server-3");
    up::signal(&damaged, Signal::KILL);
    fs::write(damaged.data_dir.join("store/sled/db"), vec![7; 1 << 16]).expect("it is writable");
    fs::write(damaged.data_dir.join("member.json"), "not a record").expect("it is writable");
    wait::until("the damaged server to refuse", Duration::from_secs(30), || {
        let log = fs::read_to_string(up.data_dir.join("logs/server-3.log")).unwrap_or_default();
        if log.contains("is damaged") { Ok(()) } else { Err(log) }
    });
    ok(up.kontiki(&["member", "replace", "server-3"]));
    assert!(id_of(&up, "server-3") > before);
    wait_for_three_voters(&up);
    let step = kubectl.ok(&["get", "configmap", "kept", "-o", "jsonpath={.data.step}"]);
    assert_eq!(step, "before");
}

#[test]
fn what_would_lose_the_quorum_is_refused_with_the_reason() {
    let up = Up::start(SERVERS);
    let paused = up.cluster().servers.into_iter().find(|s| s.name != up.leader().name);
    let paused = paused.expect("there are three");
    let leader = up.leader();
    up::signal(&paused, Signal::STOP);
    let refusal = wait::until("a removal to be refused", Duration::from_secs(20), || {
        let output = up.kontiki(&["member", "remove", &leader.name]);
        let said = said(&output);
        assert!(!output.status.success(), "it must not be done: {said}");
        if said.contains("unhealthy cluster") { Ok(said) } else { Err(said) }
    });
    assert!(refusal.contains("1 of 2 voters would answer then, and 2 are needed"), "{refusal}");
    assert!(refusal.contains(&paused.name), "{refusal}");
    up::signal(&paused, Signal::CONT);
    let unknown = up.kontiki(&["member", "promote", "server-9"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("\"server-9\" is no member"), "{}", said(&unknown));
    wait_for_three_voters(&up);
}

#[test]
fn a_cluster_that_lost_its_quorum_goes_on_from_its_survivor_and_the_others_join_anew() {
    if !requirements::met(&["kubectl"], false) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder must be had");
    let data_dir = folder.path().join("data");
    let mut up = Up::start_in(&data_dir, SERVERS);
    up.kubectl().ok(&["create", "configmap", "kept", "--from-literal=step=before"]);
    let survivor = data_dir.join("server-2");
    let busy = recover(&survivor);
    assert!(!busy.status.success() && said(&busy).contains("is in use"), "{}", said(&busy));
    up.interrupt();
    for lost in ["server-1", "server-3"] {
        fs::remove_dir_all(data_dir.join(lost)).expect("a stopped server's folder can go");
    }
    let told = ok(recover(&survivor));
    assert!(told.contains("server-2 is a cluster of its own"), "{told}");
    assert!(survivor.join("store.before-recovery-1").is_dir(), "the old store is kept");

    let up = Up::start_in(&data_dir, SERVERS);
    wait_for_three_voters(&up);
    let kubectl = up.kubectl();
    let step = kubectl.ok(&["get", "configmap", "kept", "-o", "jsonpath={.data.step}"]);
    assert_eq!(step, "before");
    let again = recover(&survivor);
    assert!(!again.status.success(), "{}", said(&again));
}

/// It would vote against what it had acknowledged, or begin a second cluster of the same name.
#[test]
fn a_server_that_lost_its_store_does_not_come_back_as_the_member_that_it_was() {
    if !requirements::met(&["etcdctl"], false) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder must be had");
    let server = Server::start(folder.path());
    let (data_dir, ports) = (server.data_dir.clone(), server.ports);
    wait::until("the record of its membership", Duration::from_secs(20), || {
        let record = fs::read_to_string(data_dir.join("member.json")).unwrap_or_default();
        if record.contains("\"joined\": true") { Ok(()) } else { Err(record) }
    });
    server.stop();
    fs::remove_dir_all(data_dir.join("store")).expect("it can go");
    let (code, said) = refused(command(&data_dir, ports, &["--init"]));
    assert_ne!(code, Some(0));
    assert!(said.contains("but its store is empty"), "{said}");
}

fn recover(data_dir: &Path) -> Output {
    Command::new(up::binary())
        .args(["member", "recover", "--data-dir"])
        .arg(data_dir)
        .stdin(Stdio::null())
        .output()
        .expect("kontiki must start")
}

/// Three servers of a cluster, started by hand: as many folders.
fn three(folder: &Path) -> Vec<Server> {
    let first = Server::start(&folder.join("1"));
    let (url, token) = door(&first);
    let join = |number: u64| {
        let name = format!("server-{number}");
        let arguments = ["--name", &name, "--join", &url, "--token-file", &token];
        Server::start_with(&folder.join(number.to_string()), &arguments)
    };
    let (second, third) = (join(2), join(3));
    vec![first, second, third]
}

fn door(server: &Server) -> (String, String) {
    let token = server.data_dir.join("server-token").display().to_string();
    (format!("https://127.0.0.1:{}", server.ports[0]), token)
}

fn member(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(up::binary());
    command
        .arg("member")
        .args(arguments)
        .arg("--data-dir")
        .arg(&server.data_dir)
        .args(["--server", &door(server).0])
        .stdin(Stdio::null());
    command
}

#[test]
fn servers_started_by_hand_are_removed_for_good_and_replaced_by_a_join() {
    if !requirements::met(&["etcdctl"], false) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder must be had");
    let mut servers = three(folder.path());
    servers[0].put("key", "kept").expect("three serve");
    let listed = member(&servers[0], &["list", "-o", "json"]).output().expect("it must start");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("it prints JSON");
    assert_eq!(rows(&listed).len(), 3, "{listed}");

    let alive = member(&servers[0], &["replace", "server-3"]).output().expect("it must start");
    assert!(!alive.status.success(), "{}", said(&alive));
    assert!(said(&alive).contains("stop its process first"), "{}", said(&alive));

    ok(member(&servers[0], &["remove", "server-2"]).output().expect("it must start"));
    wait::until("the removed server to end", Duration::from_secs(60), || {
        if servers[1].has_ended() { Ok(()) } else { Err("it runs".to_owned()) }
    });
    let base = ports::free();
    let (url, token) = door(&servers[0]);
    let arguments = ["--name", "server-2", "--join", &url, "--token-file", &token];
    let again = command(&folder.path().join("2"), [base, base + 1, base + 2], &arguments);
    let (code, said) = refused(again);
    assert_ne!(code, Some(0));
    assert!(said.contains("was removed from the cluster for good"), "{said}");

    let fresh = folder.path().join("fresh");
    let _second = Server::start_with(&fresh, &arguments);
    servers.remove(2);
    let mut replacing = member(&servers[0], &["replace", "server-3", "--wait", "60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it must start");
    let arguments = ["--name", "server-3", "--join", &url, "--token-file", &token];
    let third = Server::start_with(&folder.path().join("third"), &arguments);
    let status = replacing.wait().expect("it was started");
    assert!(status.success(), "{:?}", replacing.wait_with_output());
    assert_eq!(third.get("key").expect("it serves"), "kept");
}
