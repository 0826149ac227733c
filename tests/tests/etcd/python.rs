//! etcd's Python clients, as `clients.py` uses them.

use std::process::Command;

use kontiki_tests::requirements;
use kontiki_tests::server::Server;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/etcd/clients.py");

fn has_clients() -> bool {
    let imported = Command::new("python3").args(["-c", "import aetcd, etcd3gw"]).output();
    imported.is_ok_and(|output| output.status.success())
}

pub(crate) fn run() {
    if !requirements::met(&["python3", "etcdctl"], false) {
        return;
    }
    if !has_clients() {
        assert!(
            std::env::var_os("KONTIKI_REQUIRE_ALL").is_none(),
            "this test needs the Python packages etcd3gw and aetcd; `cargo run -p kontiki-tests -- \
             --install` installs them"
        );
        eprintln!("left out: this test needs the Python packages etcd3gw and aetcd");
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
