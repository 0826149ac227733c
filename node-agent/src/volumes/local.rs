//! Persistent volumes that are folders of this node's disk: those that the control plane makes here,
//! and those that somebody laid down by hand.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::PersistentVolume;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;

use super::check_host_path;
use crate::paths::Paths;

/// Brings the folder of a volume in place.
pub(super) fn prepare(
    paths: &Paths,
    volume: &PersistentVolume,
    dir: &Path,
    fs_group: Option<i64>,
) -> Result<(), String> {
    let spec = volume.spec.as_ref();
    if let Some(host_path) = spec.and_then(|spec| spec.host_path.as_ref()) {
        // As upstream: whose folder it is stays as whoever made it left it.
        return check_host_path(host_path);
    }
    let named = |error: std::io::Error| format!("{}: {error}", dir.display());
    if dir.parent() == Some(paths.local_volumes().as_path()) {
        make(dir).map_err(named)?;
    }
    if !dir.exists() {
        return Err(format!("path {:?} does not exist", dir.display().to_string()));
    }
    match fs_group.and_then(|group| u32::try_from(group).ok()) {
        Some(group) => own(dir, group).map_err(named),
        None => Ok(()),
    }
}

/// Makes the folder of a volume, for whatever user its pods run as.
fn make(dir: &Path) -> std::io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))
}

/// Gives all of the folder to the group, unless the folder itself has it already. A pod may be
/// changing the folder meanwhile: nothing is found by its path twice, and no link is followed.
fn own(dir: &Path, group: u32) -> std::io::Result<()> {
    const SET_GID: u32 = 0o2000;
    let folder = rustix::fs::open(dir, OFlags::DIRECTORY | OPEN, Mode::empty())?;
    let stat = rustix::fs::fstat(&folder)?;
    if stat.st_gid == group && stat.st_mode & SET_GID != 0 {
        return Ok(());
    }
    // The folder last: what is cut short is done again.
    let group = Gid::from_raw(group);
    own_below(&folder, group)?;
    give(&folder, group)
}

/// How a file is opened to be given away: a pipe, or a device, waits for nobody.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

fn own_below(folder: &OwnedFd, group: Gid) -> std::io::Result<()> {
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory | FileType::RegularFile => own_entry(folder, name, group)?,
            _ => rustix::fs::chownat(folder, name, None, Some(group), AtFlags::SYMLINK_NOFOLLOW)?,
        }
    }
    Ok(())
}

fn own_entry(folder: &OwnedFd, name: &CStr, group: Gid) -> std::io::Result<()> {
    let file = match rustix::fs::openat(folder, name, OFlags::NOFOLLOW | OPEN, Mode::empty()) {
        Ok(file) => file,
        // It has gone, or become a link, since it was looked at.
        Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Directory {
        own_below(&file, group)?;
    }
    give(&file, group)
}

fn give(file: &OwnedFd, group: Gid) -> std::io::Result<()> {
    rustix::fs::fchown(file, None, Some(group))?;
    let mode = rustix::fs::fstat(file)?.st_mode;
    let is_dir = FileType::from_raw_mode(mode) == FileType::Directory;
    let more = if is_dir { 0o2770 } else { 0o660 };
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode | more))?)
}

/// Removes the folder of a volume made here; again does no harm.
pub(crate) fn remove(paths: &Paths, name: &str) -> std::io::Result<()> {
    let mut parts = Path::new(name).components();
    let (Some(Component::Normal(leaf)), None) = (parts.next(), parts.next()) else {
        let why = format!("{name:?} is no name of a volume");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    };
    match std::fs::remove_dir_all(paths.local_volumes().join(leaf)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use serde_json::json;

    use super::*;

    fn volume(path: &Path) -> PersistentVolume {
        let spec = json!({ "local": { "path": path } });
        serde_json::from_value(json!({ "metadata": { "name": "v" }, "spec": spec })).unwrap()
    }

    #[test]
    fn the_folder_is_made_for_everybody_and_removed_by_name() {
        let data = tempfile::tempdir().unwrap();
        let paths = Paths::new(data.path());
        let dir = paths.local_volumes().join("pvc-1_ns_data");
        prepare(&paths, &volume(&dir), &dir, None).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o777);
        std::fs::write(dir.join("kept"), "x").unwrap();
        prepare(&paths, &volume(&dir), &dir, None).unwrap();
        assert!(dir.join("kept").exists());
        for bad in ["", "..", ".", "a/b", "/etc", "../x"] {
            assert!(remove(&paths, bad).is_err(), "{bad:?}");
        }
        remove(&paths, "pvc-1_ns_data").unwrap();
        remove(&paths, "pvc-1_ns_data").unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_folder_laid_down_by_hand_must_be_there() {
        let data = tempfile::tempdir().unwrap();
        let paths = Paths::new(data.path());
        let dir = data.path().join("disks/one");
        let why = prepare(&paths, &volume(&dir), &dir, None).unwrap_err();
        assert!(why.ends_with("does not exist"), "{why}");
        std::fs::create_dir_all(&dir).unwrap();
        prepare(&paths, &volume(&dir), &dir, None).unwrap();
    }

    #[test]
    fn a_folder_that_became_a_link_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let target = data.path().join("target");
        std::fs::create_dir(&target).unwrap();
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&target, data.path().join("was a folder")).unwrap();
        let folder = rustix::fs::open(data.path(), OFlags::DIRECTORY | OPEN, Mode::empty());
        let group = Gid::from_raw(target.metadata().unwrap().gid());
        own_entry(&folder.unwrap(), c"was a folder", group).unwrap();
        assert_eq!(target.metadata().unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_group_gets_all_that_is_there() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("v");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("sub/linked")).unwrap();
        // Whoever runs the test may give files to their own group only.
        let group = dir.metadata().unwrap().gid();
        own(&dir, group).unwrap();
        let mode = |path: &str| dir.join(path).metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode("sub") & 0o2770, 0o2770);
        assert_eq!(mode("sub/file") & 0o660, 0o660);
        assert_eq!(mode("") & 0o2770, 0o2770);
        let passwd = std::fs::metadata("/etc/passwd").unwrap();
        assert_eq!(passwd.mode() & 0o020, 0, "what a link leads to is left alone");
    }
}
