//! The house keeps its own rules: who may depend on whom, where versions stand, and that every path
//! the README names is there. An ordinary test, so that nobody has to remember to run it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Rule 1: what each of our crates may depend on among ours.
const OURS: &[(&str, &[&str])] = &[
    ("kontiki-storage", &[]),
    ("base2histogram", &[]),
    ("kontiki-raft", &["kontiki-storage"]),
    ("kontiki-api", &["kontiki-storage"]),
    ("kontiki-node-agent", &[]),
    ("kontiki", &["kontiki-storage", "kontiki-raft", "kontiki-api", "kontiki-node-agent"]),
    ("kontiki-conformance", &[]),
    (
        "kontiki-tests",
        &[
            "kontiki",
            "kontiki-storage",
            "kontiki-raft",
            "kontiki-api",
            "kontiki-node-agent",
            "kontiki-conformance",
        ],
    ),
    ("kontiki-simulation", &["kontiki-storage", "kontiki-raft"]),
    ("kontiki-benches", &["kontiki", "kontiki-storage", "kontiki-raft", "kontiki-api"]),
];

/// Rule 2: the one room that may name an outside library, as `(crate name in code, paths)`.
const DOORS: &[(&str, &[&str])] = &[
    ("sled", &["storage/src/engine/sled.rs", "storage/src/engine/sled/"]),
    ("openraft", &["raft/"]),
    ("axum", &["api/"]),
    ("bincode", &["storage/src/codec.rs", "raft/src/codec.rs"]),
    ("clap", &["src/", "tests/"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests has a parent").to_path_buf()
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata must run in a checkout")
}

/// Every Rust source file of the repository, as `(path from the root, text)`.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the checkout must be readable") {
            let path = entry.expect("a folder entry must be readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source must be text");
                let from_root = path.strip_prefix(root()).expect("it lies under the root");
                found.push((from_root.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn allowed(package: &Package) -> &'static [&'static str] {
    OURS.iter()
        .find(|(name, _)| *name == package.name.as_str())
        .unwrap_or_else(|| panic!("{}: a new crate needs a line in OURS (rule 1)", package.name))
        .1
}

#[test]
fn crates_depend_only_on_those_below_them() {
    for package in metadata().workspace_packages() {
        for dependency in &package.dependencies {
            let ours = dependency.name.starts_with("kontiki");
            if ours && dependency.kind != DependencyKind::Development {
                assert!(
                    allowed(package).contains(&dependency.name.as_str()),
                    "{} may not depend on {} (rule 1)",
                    package.name,
                    dependency.name
                );
            }
        }
    }
}

#[test]
fn an_outside_library_is_named_behind_its_door_only() {
    for (path, text) in sources() {
        for (library, rooms) in DOORS {
            let behind_door = rooms.iter().any(|room| path.starts_with(room));
            let names_it = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("{library}::")) && !is_own_module(code, library)
            });
            assert!(behind_door || !names_it, "{path} names {library}; its door is {rooms:?}");
        }
    }
}

/// Our own modules may share a library's name (`engine::sled`).
fn is_own_module(code: &str, library: &str) -> bool {
    ["engine::", "crate::", "super::", "self::"]
        .iter()
        .any(|prefix| code.contains(&format!("{prefix}{library}::")))
}

#[test]
fn versions_stand_in_the_workspace_table_only() {
    for package in metadata().workspace_packages() {
        let path = &package.manifest_path;
        let text = fs::read_to_string(path).expect("a manifest must be readable");
        let own = text.split("[workspace.dependencies]").next().unwrap_or_default().to_owned()
            + text.split("\n[package]").nth(1).unwrap_or_default();
        let mut in_dependencies = false;
        for line in own.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') {
                assert!(line.contains("workspace = true"), "{path}: `{line}` (rule 6)");
            }
        }
    }
}

#[test]
fn every_path_that_the_readme_names_is_there() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there must be a README.md");
    let mut named = 0;
    for quoted in readme.split('`').skip(1).step_by(2) {
        let looks_like_path = !quoted.contains([' ', '<', ':', '*', '{', '$', '='])
            && !quoted.starts_with(['/', '.', '-']);
        let in_repository =
            ["src/", "storage/", "raft/", "api/", "node-agent/", "tests/", "benches/"]
                .iter()
                .any(|top| quoted.starts_with(top));
        if looks_like_path && in_repository {
            named += 1;
            assert!(root().join(quoted).exists(), "README.md names {quoted}, which is not there");
        }
    }
    assert!(named >= 14, "the README must map the way of a write; it names {named} paths");
}

#[test]
fn no_folder_has_a_mod_rs_and_each_crate_has_its_chapter() {
    let mut chapters = BTreeMap::new();
    for (path, text) in sources() {
        assert!(!path.ends_with("/mod.rs"), "{path}: write foo.rs beside foo/");
        if path.ends_with("src/lib.rs") {
            let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
            chapters.insert(path, lines);
        }
    }
    for (path, lines) in chapters {
        assert!(lines >= 5, "{path} is its crate's chapter: what it is, a drawing, its invariants");
    }
}
