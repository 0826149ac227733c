//! Helm with a chart that has what charts have: definitions, hooks, look-ups.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kontiki_tests::kubectl::Kubectl;
use kontiki_tests::up::{self, Up};
use kontiki_tests::{requirements, wait};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{FOLDER, attempt, start};

/// Helm with folders of its own.
struct Helm {
    kubeconfig: std::path::PathBuf,
    folder: TempDir,
}

impl Helm {
    fn new(up: &Up) -> Self {
        let folder = TempDir::new().expect("a temporary folder must be had");
        Self { kubeconfig: up.data_dir.join("kubeconfig"), folder }
    }

    fn attempt(&self, arguments: &[&str]) -> Result<String, String> {
        let own = |name: &str| self.folder.path().join(name);
        attempt(
            Command::new("helm")
                .args(arguments)
                .env("KUBECONFIG", &self.kubeconfig)
                .env("HELM_CACHE_HOME", own("cache"))
                .env("HELM_CONFIG_HOME", own("config"))
                .env("HELM_DATA_HOME", own("data")),
        )
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.attempt(arguments).unwrap_or_else(|why| panic!("helm {arguments:?}: {why}"))
    }

    fn upgrade(&self, further: &[&str]) -> Result<String, String> {
        let chart = chart();
        self.attempt(&[&["upgrade", "shop", chart.as_str()], further].concat())
    }
}

fn chart() -> String {
    let chart = format!("{FOLDER}/chart");
    assert!(Path::new(&chart).exists(), "{chart} must be there");
    chart
}

pub(crate) fn run() {
    if !requirements::met(&["helm", "kubectl"], false) {
        return;
    }
    let up = start();
    let (helm, kubectl) = (Helm::new(&up), up.kubectl());
    installs(&helm, &kubectl);
    refuses(&helm, &kubectl);
    meets_another_manager(&helm, &kubectl);
    let leader = up.leader();
    up::signal(&leader, Signal::KILL);
    wait::until("another leader", Duration::from_secs(20), || match up.leader() {
        new if new.pid != leader.pid => Ok(()),
        same => Err(same.name),
    });
    helm.ok(&["rollback", "shop", "1", "--wait", "--timeout", "30s"]);
    assert_eq!(size(&kubectl), 3, "the first revision's");
    assert_eq!(kubectl.json(&["get", "configmap", "shop-after"])["data"]["revision"], "1");
    helm.ok(&["uninstall", "shop", "--wait", "--timeout", "30s"]);
    let left = kubectl.ok(&["get", "widgets,deployments,secrets", "-o", "name"]);
    assert_eq!(left, "", "an uninstalled chart leaves nothing");
    kubectl.ok(&["get", "crd", "widgets.shop.example.com"]);
}

fn size(kubectl: &Kubectl) -> i64 {
    let widget = kubectl.json(&["get", "widget", "shop"]);
    widget["spec"]["size"].as_i64().expect("a widget has a size")
}

/// Definitions come first, hooks come and go, and templates see the cluster.
fn installs(helm: &Helm, kubectl: &Kubectl) {
    helm.ok(&["install", "shop", &chart(), "--wait", "--timeout", "30s"]);
    let seen = kubectl.json(&["get", "configmap", "shop-seen"]);
    let system = kubectl.json(&["get", "namespace", "kube-system"]);
    assert_eq!(seen["data"]["system"], system["metadata"]["uid"], "what a look-up found");
    assert_eq!(seen["data"]["deployments"], "true", "what discovery said");
    assert_eq!(kubectl.json(&["get", "configmap", "shop-after"])["data"]["revision"], "1");
    assert!(kubectl.refused(&["get", "configmap", "shop-before"]).contains("not found"));
    helm.upgrade(&["--set", "size=4", "--wait", "--timeout", "30s"]).expect("it must be upgraded");
    assert_eq!(size(kubectl), 4);
    assert_eq!(kubectl.json(&["get", "configmap", "shop-after"])["data"]["revision"], "2");
}

/// What the definition does not allow is told in so many words, and undone.
fn refuses(helm: &Helm, kubectl: &Kubectl) {
    let why = helm.upgrade(&["--set", "size=-1", "--rollback-on-failure", "--timeout", "30s"]);
    let why = why.expect_err("a widget cannot be that small");
    assert!(why.contains("spec.size in body should be greater than or equal to 1"), "{why}");
    assert!(why.contains("has been rolled back"), "{why}");
    assert_eq!(size(kubectl), 4);
    let why = helm.upgrade(&["--set", "label=other"]).expect_err("a selector cannot change");
    assert!(why.contains("field is immutable"), "{why}");
}

/// Fields that somebody else took are theirs until they are forced.
fn meets_another_manager(helm: &Helm, kubectl: &Kubectl) {
    kubectl.ok(&["patch", "configmap", "shop-seen", "-p", r#"{"data":{"system":"mine"}}"#]);
    let why = helm.upgrade(&[]).expect_err("the field is another manager's");
    assert!(why.contains("conflict with \"kubectl-patch\" using v1: .data.system"), "{why}");
    helm.upgrade(&["--force-conflicts"]).expect("force takes it back");
    let history = helm.ok(&["history", "shop"]);
    assert!(history.contains("Upgrade complete"), "{history}");
}
