//! Kubernetes' libraries for Python and JavaScript, as the scripts beside this use them.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use kontiki_tests::requirements;
use tempfile::TempDir;

use super::{FOLDER, attempt, start};

const NODE_LIBRARY: &str = "@kubernetes/client-node";

pub(crate) fn python() {
    if !requirements::met(&["python3"], false) || !requirements::python_has(&["kubernetes"]) {
        return;
    }
    let up = start();
    let mut python = Command::new("python3");
    python.arg(format!("{FOLDER}/python.py")).env("KUBECONFIG", up.data_dir.join("kubeconfig"));
    attempt(&mut python).unwrap_or_else(|complaint| panic!("{complaint}"));
}

pub(crate) fn javascript() {
    if !requirements::met(&["node"], false) {
        return;
    }
    let Some(modules) = requirements::node_modules(NODE_LIBRARY) else { return };
    let up = start();
    // A script finds libraries by where it lies.
    let folder = TempDir::new().expect("a temporary folder must be had");
    symlink(modules, folder.path().join("node_modules")).expect("a link must be made");
    let script = folder.path().join("javascript.mjs");
    fs::copy(format!("{FOLDER}/javascript.mjs"), &script).expect("the script must be copied");
    let mut node = Command::new("node");
    node.arg(script).env("KUBECONFIG", up.data_dir.join("kubeconfig"));
    attempt(&mut node).unwrap_or_else(|complaint| panic!("{complaint}"));
}
