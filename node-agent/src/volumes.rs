//! The volumes of a pod: folders below its own, filled from the API where the kind asks for it.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, PersistentVolume, Pod, Volume, VolumeMount,
};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::env::{Facts, References};
use crate::paths::Paths;
use crate::quantity;
use crate::runtime::{Mount, Propagation};

mod files;
pub(crate) mod local;

pub use files::{TokenWanted, Tokens, tokens_wanted};

/// Why a volume is not in place.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
pub struct VolumeError {
    volume: String,
    why: String,
}

impl VolumeError {
    pub(crate) fn new(volume: &str, why: impl Into<String>) -> Self {
        Self { volume: volume.to_owned(), why: why.into() }
    }
}

/// What filling a pod's volumes needs.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// ConfigMaps and Secrets.
    pub references: &'a References,
    /// Fields of pod and node.
    pub facts: &'a Facts,
    /// Tokens, by volume and path.
    pub tokens: &'a Tokens,
}

/// Where a volume of a pod stands on the node.
fn host_path(
    paths: &Paths,
    pod: &Pod,
    volume: &Volume,
    references: &References,
) -> Result<PathBuf, VolumeError> {
    if let Some(host_path) = &volume.host_path {
        return Ok(PathBuf::from(&host_path.path));
    }
    if claim_of(pod, volume).is_some() {
        let spec = persistent(pod, volume, references)?.spec.as_ref();
        let local = spec.and_then(|spec| Some(spec.local.as_ref()?.path.as_str()));
        let path =
            local.or_else(|| spec.and_then(|spec| Some(spec.host_path.as_ref()?.path.as_str())));
        let path = path.ok_or_else(|| {
            VolumeError::new(&volume.name, "this kind of persistent volume is not supported")
        })?;
        return Ok(PathBuf::from(path));
    }
    Ok(paths.pod(crate::api::uid(pod)).join("volumes").join(&volume.name))
}

/// The name of the claim behind a volume: the one it names, or the one made for the pod.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", crate::api::name(pod), volume.name))
}

fn persistent<'a>(
    pod: &Pod,
    volume: &Volume,
    references: &'a References,
) -> Result<&'a PersistentVolume, VolumeError> {
    let claim = claim_of(pod, volume).unwrap_or_default();
    let found = references.volumes.get(&claim);
    found.ok_or_else(|| VolumeError::new(&volume.name, format!("claim {claim:?} has no volume")))
}

/// Whether files of the pod's volumes come from the API, and change with it.
pub fn is_refreshed(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
    })
}

/// Brings every volume of a pod in place; again does no harm, and refreshes what the API said.
pub fn prepare(paths: &Paths, pod: &Pod, sources: Sources<'_>) -> Result<(), VolumeError> {
    let spec = pod.spec.as_ref();
    let fs_group =
        spec.and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.fs_group);
    for volume in spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let dir = host_path(paths, pod, volume, sources.references)?;
        let failed = |error: std::io::Error| {
            VolumeError::new(&volume.name, format!("{}: {error}", dir.display()))
        };
        if let Some(host_path) = &volume.host_path {
            check_host_path(host_path).map_err(|why| VolumeError::new(&volume.name, why))?;
            continue;
        }
        if claim_of(pod, volume).is_some() {
            let volume_object = persistent(pod, volume, sources.references)?;
            local::prepare(paths, volume_object, &dir, fs_group)
                .map_err(|why| VolumeError::new(&volume.name, why))?;
            continue;
        }
        std::fs::create_dir_all(&dir).map_err(failed)?;
        if let Some(empty) = &volume.empty_dir {
            if empty.medium.as_deref() == Some("Memory") {
                let size = empty.size_limit.as_ref().and_then(quantity::whole);
                mount_tmpfs(&dir, size, 0o777).map_err(failed)?;
            }
            open_to_all(&dir, fs_group).map_err(failed)?;
            continue;
        }
        let Some(payload) = files::payload(pod, volume, sources)? else {
            return Err(VolumeError::new(&volume.name, "this kind of volume is not supported"));
        };
        if payload.secret {
            mount_tmpfs(&dir, None, 0o755).map_err(failed)?;
        }
        files::write(&dir, &payload, fs_group).map_err(failed)?;
    }
    Ok(())
}

/// The mounts of a container's volumes.
pub fn mounts(
    paths: &Paths,
    pod: &Pod,
    mounts: &[VolumeMount],
    references: &References,
    expand: impl Fn(&str) -> Result<String, String>,
) -> Result<Vec<Mount>, VolumeError> {
    let volumes: BTreeMap<&str, &Volume> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .map(|volume| (volume.name.as_str(), volume))
        .collect();
    let mut result = Vec::with_capacity(mounts.len());
    for wanted in mounts {
        let volume = volumes
            .get(wanted.name.as_str())
            .ok_or_else(|| VolumeError::new(&wanted.name, "the pod has no such volume"))?;
        let mut path = host_path(paths, pod, volume, references)?;
        let sub_path = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(sub_path), _) if !sub_path.is_empty() => Some(sub_path.clone()),
            (_, Some(expression)) if !expression.is_empty() => {
                Some(expand(expression).map_err(|why| VolumeError::new(&volume.name, why))?)
            }
            _ => None,
        };
        if let Some(sub_path) = sub_path {
            path = inside(&path, &sub_path).map_err(|why| VolumeError::new(&volume.name, why))?;
        }
        result.push(Mount {
            container_path: wanted.mount_path.clone(),
            host_path: path,
            read_only: wanted.read_only.unwrap_or(false) || is_read_only(volume),
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    Ok(result)
}

/// Whether the pod's claim, not only the container, wants it so.
fn is_read_only(volume: &Volume) -> bool {
    volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
}

/// A path below a volume. What a container put there may be a link to anywhere: it is resolved
/// and must still lie inside.
fn inside(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let sub_path = Path::new(sub_path);
    let plain = sub_path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if !plain {
        return Err(format!("subPath {} must not leave the volume", sub_path.display()));
    }
    let path = volume.join(sub_path);
    if !path.exists() {
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let resolve =
        |path: &Path| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    let (resolved, volume) = (resolve(&path)?, resolve(volume)?);
    if resolved.starts_with(&volume) {
        return Ok(resolved);
    }
    Err(format!("subPath {} leads out of the volume", sub_path.display()))
}

fn check_host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let is = |wanted: &str, holds: bool| {
        if holds {
            Ok(())
        } else {
            Err(format!("hostPath type check failed: {} is not a {wanted}", path.display()))
        }
    };
    match source.type_.as_deref().unwrap_or_default() {
        "Directory" => is("directory", path.is_dir()),
        "File" => is("file", path.is_file()),
        "Socket" | "CharDevice" | "BlockDevice" => is("device or socket", path.exists()),
        "DirectoryOrCreate" => std::fs::create_dir_all(path).map_err(|error| error.to_string()),
        "FileOrCreate" if !path.exists() => std::fs::write(path, "").map_err(|e| e.to_string()),
        _ => Ok(()),
    }
}

fn open_to_all(dir: &Path, fs_group: Option<i64>) -> std::io::Result<()> {
    let group = fs_group.and_then(|group| u32::try_from(group).ok());
    if let Some(group) = group {
        chown(dir, None, Some(group))?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))
}

fn mount_tmpfs(dir: &Path, size: Option<i64>, mode: u32) -> std::io::Result<()> {
    if is_mounted(dir)? {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size {
        options.push_str(&format!(",size={size}"));
    }
    let options = std::ffi::CString::new(options)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", dir, "tmpfs", flags, options.as_c_str())?;
    Ok(())
}

fn is_mounted(dir: &Path) -> std::io::Result<bool> {
    Ok(mounts_below(dir)?.iter().any(|mount| mount == dir))
}

/// Mount points at and below `dir`, innermost first.
pub fn mounts_below(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(dir))
        .collect();
    found.reverse();
    Ok(found)
}

/// The kernel writes blanks and backslashes of paths as `\040`.
fn unescape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|code| u8::from_str_radix(code, 8).ok());
        if let Some(code) = code {
            out.push(char::from(code));
            rest = &rest[at + 4..];
        } else {
            out.push('\\');
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out
}

/// Unmounts everything at and below `dir`.
pub fn unmount_below(dir: &Path) {
    for mount in mounts_below(dir).unwrap_or_default() {
        if let Err(error) = rustix::mount::unmount(&mount, UnmountFlags::DETACH) {
            tracing::warn!(mount = %mount.display(), %error, "a mount stays");
        }
    }
}

/// Removes a pod's folder with everything mounted in it.
pub fn tear_down(paths: &Paths, pod_uid: &str) -> std::io::Result<()> {
    let dir = paths.pod(pod_uid);
    unmount_below(&dir);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
