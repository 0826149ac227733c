//! What a test needs from the machine. A test that cannot run says so; where everything must run
//! (`KONTIKI_REQUIRE_ALL=1`, as in continuous integration), that is a failure.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether `programs` are there and, where asked for, the process is root.
///
/// # Panics
/// When something is missing although `KONTIKI_REQUIRE_ALL` is set.
pub fn met(programs: &[&str], root: bool) -> bool {
    let mut missing: Vec<String> =
        programs.iter().filter(|name| !is_there(name)).map(|name| (*name).to_owned()).collect();
    if root && !rustix::process::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    missing.is_empty() || lacks(&missing)
}

/// Whether Python finds all these `modules`.
///
/// # Panics
/// When it does not although `KONTIKI_REQUIRE_ALL` is set.
pub fn python_has(modules: &[&str]) -> bool {
    let import = format!("import {}", modules.join(", "));
    let imported = Command::new("python3").args(["-c", &import]).output();
    if imported.is_ok_and(|output| output.status.success()) {
        return true;
    }
    lacks(&modules.iter().map(|module| format!("Python's {module}")).collect::<Vec<_>>())
}

/// The folder `node_modules` beside the programs on the path, where `library` is in it.
///
/// # Panics
/// When it is not there although `KONTIKI_REQUIRE_ALL` is set.
pub fn node_modules(library: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .filter_map(|folder| Some(folder.parent()?.join("node_modules")))
        .find(|modules| modules.join(library).exists());
    if found.is_none() {
        lacks(&[format!("Node.js' {library}")]);
    }
    found
}

fn lacks(missing: &[String]) -> bool {
    assert!(
        env::var_os("KONTIKI_REQUIRE_ALL").is_none(),
        "this test needs {missing:?}; `cargo run -p kontiki-tests -- --install` installs them"
    );
    eprintln!("left out: this test needs {missing:?}");
    false
}

fn is_there(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    env::split_paths(&path).any(|folder| folder.join(program).exists())
}
