//! Bad input and broken machines: each is refused with what and why, and leaves everything as it was.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kontiki_tests::server::{Server, command, refused};
use kontiki_tests::up::{self, Up};
use kontiki_tests::{ports, requirements, wait};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const PROGRAMS: &[&str] = &["etcdctl"];

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder must be had")
}

fn three_ports() -> [u16; 3] {
    let base = ports::free();
    [base, base + 1, base + 2]
}

#[test]
fn a_port_in_use_is_named() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port must be had");
    let port = taken.local_addr().expect("it is bound").port();
    let [_, raft, etcd] = three_ports();
    let (code, said) = refused(command(folder.path(), [port, raft, etcd], &["--init"]));
    assert_ne!(code, Some(0));
    assert!(said.contains(&port.to_string()) && said.contains("use"), "{said}");
}

#[test]
fn a_data_directory_in_use_is_refused_with_the_process_that_has_it() {
    if !requirements::met(PROGRAMS, false) {
        return;
    }
    let folder = folder();
    let server = Server::start(folder.path());
    let (code, said) = refused(command(folder.path(), three_ports(), &["--init"]));
    assert_ne!(code, Some(0));
    assert!(said.contains("in use") && said.contains(&server.pid().to_string()), "{said}");
    server.put("still", "serving").expect("the first one must not be disturbed");
}

#[test]
fn a_data_directory_of_another_cluster_is_refused() {
    if !requirements::met(PROGRAMS, false) {
        return;
    }
    let (ours, theirs) = (folder(), folder());
    let server = Server::start(ours.path());
    Server::start(theirs.path()).stop();
    let token = fs::read_to_string(ours.path().join("server-token")).expect("init writes a token");
    let url = format!("https://127.0.0.1:{}", server.ports[0]);
    let arguments = ["--join", url.as_str(), "--token", token.trim()];
    let (code, said) = refused(command(theirs.path(), three_ports(), &arguments));
    assert_ne!(code, Some(0));
    assert!(said.contains("cluster"), "{said}");
}

#[test]
fn a_data_directory_of_another_server_of_the_cluster_is_refused() {
    if !requirements::met(PROGRAMS, false) {
        return;
    }
    let folder = folder();
    let server = Server::start(folder.path());
    server.put("before", "kept").expect("it must serve");
    server.stop();
    let (code, said) =
        refused(command(folder.path(), three_ports(), &["--name", "server-9", "--init"]));
    assert_ne!(code, Some(0));
    assert!(said.contains("server-1") && said.contains("server-9"), "{said}");
    let again = Server::start(folder.path());
    assert_eq!(again.get("before").expect("it must serve"), "kept");
}

#[test]
fn a_server_whose_directory_is_lost_comes_back_as_a_new_member() {
    let up = Up::start(&["--servers", "3", "--agents", "0", "--runtime", "none"]);
    let before = members(&up);
    let lost = up.cluster().servers.remove(1);
    up::signal(&lost, Signal::KILL);
    fs::remove_dir_all(&lost.data_dir).expect("a dead server's directory can be removed");
    let after = wait::until("three voters, one of them new", Duration::from_secs(60), || {
        let now = members(&up);
        let is_whole = now.len() == 3 && now.iter().all(|(_, _, role)| role == "voter");
        if is_whole && now != before { Ok(now) } else { Err(format!("{now:?}")) }
    });
    let id = |members: &[(String, u64, String)]| {
        members.iter().find(|(name, ..)| *name == lost.name).map(|(_, id, _)| *id)
    };
    assert!(id(&after) > id(&before), "R8: {} must get a new identity: {after:?}", lost.name);
}

/// Name, identity and role of each member, as one that is alive knows them.
fn members(up: &Up) -> Vec<(String, u64, String)> {
    let status = up.status().unwrap_or_default();
    let mut known = status["servers"].as_array().into_iter().flatten();
    let all = known.find_map(|server| server["members"].as_array());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut members: Vec<_> = all
        .into_iter()
        .flatten()
        .map(|one| (text(&one["name"]), one["id"].as_u64().unwrap_or(0), text(&one["role"])))
        .collect();
    members.sort();
    members
}

#[test]
fn without_containerd_the_control_plane_starts_and_says_what_is_missing() {
    if !requirements::met(&["containerd", "unshare"], true) {
        return;
    }
    let folder = folder();
    let data_dir = folder.path().join("data");
    let up = Up::start_without("containerd", &data_dir, &["--servers", "1", "--agents", "1"]);
    let said = up.printed();
    assert!(up.ready.starts_with("ready: 1 server, 0 agents"), "{}", up.ready);
    assert!(said.contains("missing: containerd"), "{said}");
    assert!(
        said.contains("apt-get install containerd") && said.contains("--install-packages"),
        "{said}"
    );
}

#[test]
fn what_is_missing_is_installed_when_asked() {
    if !requirements::met(&["containerd", "runc", "nft", "unshare"], true) {
        return;
    }
    let folder = folder();
    let data_dir = folder.path().join("data");
    let up = Up::start_installing(
        "containerd",
        folder.path(),
        &data_dir,
        &["--servers", "1", "--agents", "1"],
    );
    assert!(up.ready.starts_with("ready: 1 server, 1 agent"), "{}", up.ready);
    let asked = fs::read_to_string(folder.path().join("asked")).expect("it must be asked");
    let asked: Vec<&str> = asked.lines().collect();
    assert_eq!(asked, ["update", "install --yes --no-install-recommends containerd"]);
    assert!(up.printed().contains("apt-get install"), "{}", up.printed());
}

#[test]
fn a_taken_node_name_is_refused() {
    if !requirements::met(&["kubectl", "containerd", "runc", "nft"], true) {
        return;
    }
    let up = Up::start(&["--servers", "1", "--agents", "0", "--runtime", "none"]);
    let kubectl = up.kubectl();
    let node = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"taken"}}"#;
    kubectl.apply(node).expect("an administrator may create nodes");
    let before = kubectl.json(&["get", "node", "taken"]);
    let server = up.cluster().servers.remove(0);
    let api = server.rest["api"].as_str().expect("cluster.json has it").to_owned();
    let folder = folder();
    let mut agent = std::process::Command::new(up::binary());
    agent
        .args(["agent", "--node-name", "taken", "--node-ip", "127.0.0.1", "--server", &api])
        .arg("--token-file")
        .arg(up.data_dir.join("node-token"))
        .arg("--data-dir")
        .arg(folder.path());
    let (code, said) = refused(agent);
    assert_ne!(code, Some(0));
    assert!(said.contains("taken") && said.contains("--node-name"), "{said}");
    let after = kubectl.json(&["get", "node", "taken"]);
    assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
}

#[test]
fn a_request_past_its_deadline_is_told_so() {
    if !requirements::met(&["kubectl"], false) {
        return;
    }
    let up = Up::start(&["--servers", "3", "--agents", "0", "--runtime", "none"]);
    let leader = up.leader();
    let api = leader.rest["api"].as_str().expect("cluster.json has it").to_owned();
    let followers: Vec<_> =
        up.cluster().servers.into_iter().filter(|server| server.name != leader.name).collect();
    let folder = folder();
    let file = folder.path().join("late.json");
    let object = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"late"}}"#;
    fs::write(&file, object).expect("it must be written");
    let file = file.to_string_lossy().into_owned();
    for follower in &followers {
        up::signal(follower, Signal::STOP);
    }
    let path = "/api/v1/namespaces/default/configmaps?timeout=500ms";
    let refusal = up.kubectl().attempt(&["--server", &api, "create", "--raw", path, "-f", &file]);
    for follower in &followers {
        up::signal(follower, Signal::CONT);
    }
    let refusal = refusal.expect_err("nothing can be durable at a majority that is paused");
    assert!(
        refusal.contains("request did not complete within requested timeout"),
        "504 and why: {refusal}"
    );
    wait::until("the cluster to go on", Duration::from_secs(30), || {
        up.kubectl().attempt(&["create", "configmap", "in-time", "--request-timeout=5s"])
    });
}

#[test]
fn a_wrong_token_is_refused() {
    if !requirements::met(PROGRAMS, false) {
        return;
    }
    let (ours, theirs) = (folder(), folder());
    let server = Server::start(ours.path());
    let token = fs::read_to_string(ours.path().join("server-token")).expect("init writes a token");
    let (rest, secret) = token.trim().rsplit_once(':').expect("a token has parts");
    let wrong = format!("{rest}:{}", secret.chars().rev().collect::<String>());
    let url = format!("https://127.0.0.1:{}", server.ports[0]);
    let arguments = ["--name", "server-2", "--join", url.as_str(), "--token", &wrong];
    let (code, said) = refused(command(theirs.path(), three_ports(), &arguments));
    assert_ne!(code, Some(0));
    assert!(said.contains("token"), "{said}");
}

#[test]
fn a_damaged_record_is_refused_with_its_place() {
    if !requirements::met(PROGRAMS, false) {
        return;
    }
    let folder = folder();
    let server = Server::start(folder.path());
    for number in 0..50 {
        server.put(&format!("key-{number}"), "a value to be damaged").expect("it must serve");
    }
    // Killed and not stopped: the journal still holds what was acknowledged.
    drop(server);
    let damaged = damage(folder.path());
    let (code, said) = refused(command(folder.path(), three_ports(), &["--init"]));
    assert_ne!(code, Some(0));
    let name = damaged.file_name().unwrap_or_default().to_string_lossy().into_owned();
    assert!(said.contains("damaged") && said.contains(&name), "{said}");
}

/// Flips one bit of an early record in the journal; many records follow it, so it is no torn tail.
fn damage(data_dir: &Path) -> PathBuf {
    let needle = b"a value to be damaged";
    for path in files_under(data_dir) {
        let mut bytes = fs::read(&path).expect("it must be readable");
        let found = bytes.windows(needle.len()).position(|window| window == needle);
        if let (Some(at), true) = (found, path.to_string_lossy().contains("journal")) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("it must be writable");
            return path;
        }
    }
    panic!("no journal under {} holds the value", data_dir.display());
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("it must be readable").flatten() {
        if entry.path().is_dir() {
            found.extend(files_under(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// A small file system of its own, gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = folder();
        let options = std::ffi::CString::new(format!("size={size}")).expect("no zero byte in it");
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), options.as_c_str())
            .expect("root may mount a tmpfs");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    if !requirements::met(PROGRAMS, true) {
        return;
    }
    let disk = SmallDisk::new("160m");
    let data_dir = disk.0.path().join("data");
    let filler = disk.0.path().join("filler");
    let mut server = Server::start(&data_dir);
    server.put("before", "kept").expect("there is room");
    fill(&filler);

    let value = "x".repeat(100_000);
    let mut acknowledged = 0;
    let refusal = wait::until("a write to be refused", Duration::from_secs(60), || {
        match server.put(&format!("filling-{acknowledged}"), &value) {
            Ok(()) => {
                acknowledged += 1;
                Err(format!("{acknowledged} writes taken"))
            }
            Err(refusal) => Ok(refusal),
        }
    });
    assert!(!refusal.is_empty());
    wait::until("the server to say so or stop", Duration::from_secs(10), || {
        if server.has_ended() || server.put("after", "refused").is_err() {
            Ok(())
        } else {
            Err("it takes writes again".to_owned())
        }
    });
    drop(server);

    fs::remove_file(&filler).expect("it must be removable");
    let again = Server::start(&data_dir);
    assert_eq!(again.get("before").expect("it must serve"), "kept");
    for number in 0..acknowledged {
        let kept = again.get(&format!("filling-{number}")).expect("it must serve");
        assert_eq!(kept.len(), value.len(), "filling-{number} was acknowledged");
    }
}

/// Leaves no room on the disk.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).expect("it must be writable");
    let block = vec![0u8; 1 << 16];
    while file.write_all(&block).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
}
