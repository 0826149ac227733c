//! etcd's Python clients, as `clients.py` uses them.

use std::process::Command;

use kontiki_tests::requirements;
use kontiki_tests::server::Server;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/etcd/clients.py");

pub(crate) fn run() {
    if !requirements::met(&["python3", "etcdctl"], false)
        || !requirements::python_has(&["aetcd", "etcd3gw"])
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), &["--init", "--store-only"]);
    let port = server.ports[2].to_string();
    let output = Command::new("python3").args([SCRIPT, "127.0.0.1", &port]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
