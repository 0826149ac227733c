//! What is on disk: who may read it, and whose it is.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::target::Target;
use super::{Finding, Item};

const DATA_MODE: Item =
    Item { id: "1.1.11", title: "The store's directory is its owner's alone (700)" };
const DATA_OWNER: Item = Item { id: "1.1.12", title: "The store's directory is the server's own" };
const ADMIN_MODE: Item =
    Item { id: "1.1.13", title: "The administrator's credentials are readable by the owner alone" };
const PKI_OWNER: Item = Item { id: "1.1.19", title: "Certificates and keys are the server's own" };
const CERT_MODE: Item =
    Item { id: "1.1.20", title: "Certificates are writable by their owner alone (644 or less)" };
const KEY_MODE: Item =
    Item { id: "1.1.21", title: "Keys are readable by their owner alone (600 or less)" };
const OWN_AUTHORITY: Item =
    Item { id: "2.7", title: "Members trust an authority of their own, not the API's" };

/// Looks at the directories of all servers.
pub(super) fn check(target: &Target) -> anyhow::Result<Vec<Finding>> {
    let dirs: Vec<&Path> = target.file.servers.iter().map(|one| one.data_dir.as_path()).collect();
    let mut pki = Vec::new();
    for dir in &dirs {
        pki.extend(listed(&dir.join("pki"))?);
    }
    let (keys, certificates): (Vec<PathBuf>, Vec<PathBuf>) =
        pki.iter().cloned().partition(|path| path.extension().is_some_and(|end| end == "key"));
    let stores: Vec<PathBuf> = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    let kubeconfig = vec![target.file.kubeconfig.clone()];
    Ok(vec![
        modes(DATA_MODE, &stores, 0o700)?,
        owners(DATA_OWNER, &stores)?,
        modes(ADMIN_MODE, &kubeconfig, 0o600)?,
        owners(PKI_OWNER, &pki)?,
        modes(CERT_MODE, &certificates, 0o644)?,
        modes(KEY_MODE, &keys, 0o600)?,
        authorities(&dirs)?,
    ])
}

fn listed(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || format!("read {}", dir.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(read)? {
        paths.push(entry.with_context(read)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Whether nobody may do more with the files than `most` allows.
fn modes(item: Item, paths: &[PathBuf], most: u32) -> anyhow::Result<Finding> {
    let mut wider = Vec::new();
    let mut seen = 0;
    for path in paths {
        let metadata = path.metadata().with_context(|| format!("look at {}", path.display()))?;
        let mode = metadata.mode() & 0o7777;
        seen |= mode;
        if mode & !most != 0 {
            wider.push(format!("{} has {mode:o}", path.display()));
        }
    }
    let all = format!("{} looked at, none wider than {seen:o}", paths.len());
    let holds = wider.is_empty() && !paths.is_empty();
    Ok(item.judge(holds, if wider.is_empty() { all } else { wider.join(", ") }))
}

/// Whether the files belong to who runs this, as the servers do.
fn owners(item: Item, paths: &[PathBuf]) -> anyhow::Result<Finding> {
    let own = rustix::process::geteuid().as_raw();
    let mut others = Vec::new();
    for path in paths {
        let metadata = path.metadata().with_context(|| format!("look at {}", path.display()))?;
        if metadata.uid() != own {
            others.push(format!("{} is user {}'s", path.display(), metadata.uid()));
        }
    }
    let all = format!("{} looked at, all user {own}'s", paths.len());
    Ok(item.judge(others.is_empty(), if others.is_empty() { all } else { others.join(", ") }))
}

fn authorities(dirs: &[&Path]) -> anyhow::Result<Finding> {
    let mut same = Vec::new();
    for dir in dirs {
        let read = |name: &str| {
            let path = dir.join("pki").join(name);
            std::fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        if read("ca.crt")? == read("peer-ca.crt")? {
            same.push(dir.display().to_string());
        }
    }
    let said = if same.is_empty() {
        "peer-ca.crt differs from ca.crt on all servers".to_owned()
    } else {
        format!("the same authority for both: {}", same.join(", "))
    };
    Ok(OWN_AUTHORITY.judge(same.is_empty(), said))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("a.key"), folder.path().join("b.key"));
        for (path, mode) in [(&good, 0o600), (&bad, 0o640)] {
            write(path, "").unwrap();
            set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let found = modes(KEY_MODE, &[good.clone(), bad], 0o600).unwrap();
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.evidence.ends_with("b.key has 640"), "{}", found.evidence);
        assert_eq!(modes(KEY_MODE, &[good], 0o600).unwrap().verdict, Verdict::Pass);
        assert_eq!(modes(KEY_MODE, &[], 0o600).unwrap().verdict, Verdict::Fail, "none was seen");
    }
}
