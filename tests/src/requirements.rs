//! What a test needs from the machine. A test that cannot run says so; where everything must run
//! (`KONTIKI_REQUIRE_ALL=1`, as in continuous integration), that is a failure.

use std::env;
use std::path::Path;

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
    if missing.is_empty() {
        return true;
    }
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
