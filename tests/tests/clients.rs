//! Clients that know nothing of Kontiki, against three servers: what they do must come out as with
//! Kubernetes.

#[path = "clients/helm.rs"]
mod helm;
#[path = "clients/libraries.rs"]
mod libraries;

use std::process::{Command, Stdio};

use kontiki_tests::up::Up;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

fn start() -> Up {
    Up::start(&["--servers", "3", "--agents", "0", "--runtime", "none"])
}

/// What a client printed, or its complaint.
fn attempt(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().expect("the client must start");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(printed) } else { Err(printed + &complaint) }
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls_while_the_leader_dies() {
    helm::run();
}

#[test]
fn the_python_library_finds_what_it_expects() {
    libraries::python();
}

#[test]
fn the_javascript_library_finds_what_it_expects() {
    libraries::javascript();
}
