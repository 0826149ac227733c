//! Volumes whose files come from the API: config maps, secrets, fields of the pod, tokens, and
//! projections of them. Files change all at once: they are links through `..data`, which is
//! swapped by one rename.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use super::{Sources, VolumeError};
use crate::env::{field_value, resource_value};

/// Mode of files that say none.
const MODE_DEFAULT: i32 = 0o644;
/// Name of the link that is swapped.
const DATA: &str = "..data";

/// Tokens by volume and path.
pub type Tokens = BTreeMap<(String, String), String>;

/// A token that a projected volume wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWanted {
    /// Name of the volume.
    pub volume: String,
    /// File in it.
    pub path: String,
    /// For whom the token is; the API server if none.
    pub audience: Option<String>,
    /// How long it shall hold.
    pub seconds: i64,
}

/// Tokens that a pod's volumes want.
pub fn tokens_wanted(pod: &Pod) -> Vec<TokenWanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut wanted = Vec::new();
    for volume in volumes {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for token in sources.filter_map(|source| source.service_account_token.as_ref()) {
            wanted.push(TokenWanted {
                volume: volume.name.clone(),
                path: token.path.clone(),
                audience: token.audience.clone(),
                seconds: token.expiration_seconds.unwrap_or(3600),
            });
        }
    }
    wanted
}

/// The files of one volume.
#[derive(Debug, Default)]
pub(super) struct Payload {
    files: BTreeMap<String, (Vec<u8>, i32)>,
    /// They must not reach a disk.
    pub(super) secret: bool,
}

/// The files a volume shall hold; none for kinds without files.
pub(super) fn payload(
    pod: &Pod,
    volume: &Volume,
    sources: Sources<'_>,
) -> Result<Option<Payload>, VolumeError> {
    let mut payload = Payload::default();
    let fill = Fill { pod, volume: &volume.name, sources };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let optional = source.optional == Some(true);
        fill.config_map(&source.name, source.items.as_deref(), mode, optional, &mut payload)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let optional = source.optional == Some(true);
        fill.secret(name, source.items.as_deref(), mode, optional, &mut payload)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        fill.fields(source.items.as_deref().unwrap_or_default(), mode, &mut payload)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(MODE_DEFAULT);
        for source in projected.sources.iter().flatten() {
            fill.projection(source, mode, &mut payload)?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(payload))
}

/// Fills payloads for one volume.
struct Fill<'a> {
    pod: &'a Pod,
    volume: &'a str,
    sources: Sources<'a>,
}

impl Fill<'_> {
    fn error(&self, why: impl Into<String>) -> VolumeError {
        VolumeError::new(self.volume, why)
    }

    fn projection(
        &self,
        source: &VolumeProjection,
        mode: i32,
        payload: &mut Payload,
    ) -> Result<(), VolumeError> {
        if let Some(source) = &source.config_map {
            let optional = source.optional == Some(true);
            self.config_map(&source.name, source.items.as_deref(), mode, optional, payload)?;
        }
        if let Some(source) = &source.secret {
            let optional = source.optional == Some(true);
            self.secret(&source.name, source.items.as_deref(), mode, optional, payload)?;
        }
        if let Some(source) = &source.downward_api {
            self.fields(source.items.as_deref().unwrap_or_default(), mode, payload)?;
        }
        if let Some(source) = &source.service_account_token {
            let key = (self.volume.to_owned(), source.path.clone());
            let token =
                self.sources.tokens.get(&key).ok_or_else(|| self.error("no token was given"))?;
            payload.files.insert(source.path.clone(), (token.clone().into_bytes(), mode));
            payload.secret = true;
        }
        Ok(())
    }

    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
        payload: &mut Payload,
    ) -> Result<(), VolumeError> {
        let Some(found) = self.sources.references.config_maps.get(name).and_then(Option::as_ref)
        else {
            return self.absent("configmap", name, optional);
        };
        let text = found.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
        let binary = found.binary_data.iter().flatten();
        let binary = binary.map(|(key, value)| (key.as_str(), value.0.as_slice()));
        self.select(&text.chain(binary).collect(), items, mode, optional, payload)
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
        payload: &mut Payload,
    ) -> Result<(), VolumeError> {
        payload.secret = true;
        let Some(found) = self.sources.references.secrets.get(name).and_then(Option::as_ref) else {
            return self.absent("secret", name, optional);
        };
        let data = found.data.iter().flatten();
        let data = data.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect();
        self.select(&data, items, mode, optional, payload)
    }

    fn absent(&self, kind: &str, name: &str, optional: bool) -> Result<(), VolumeError> {
        if optional { Ok(()) } else { Err(self.error(format!("{kind} {name:?} not found"))) }
    }

    /// All keys under their own names, or those that `items` lists under the paths it gives.
    fn select(
        &self,
        data: &BTreeMap<&str, &[u8]>,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
        payload: &mut Payload,
    ) -> Result<(), VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let all = data.iter().map(|(key, value)| ((*key).to_owned(), (value.to_vec(), mode)));
            payload.files.extend(all);
            return Ok(());
        };
        for item in items {
            match data.get(item.key.as_str()) {
                Some(value) => {
                    let mode = item.mode.unwrap_or(mode);
                    payload.files.insert(item.path.clone(), (value.to_vec(), mode));
                }
                None if optional => {}
                None => {
                    return Err(self.error(format!("references non-existent key: {}", item.key)));
                }
            }
        }
        Ok(())
    }

    fn fields(
        &self,
        items: &[DownwardAPIVolumeFile],
        mode: i32,
        payload: &mut Payload,
    ) -> Result<(), VolumeError> {
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                field_value(self.pod, field, self.sources.facts)
            } else if let Some(resource) = &item.resource_field_ref {
                let Some(container) = crate::plan::all_containers(self.pod).next() else {
                    continue;
                };
                resource_value(self.pod, container, resource, self.sources.facts)
            } else {
                continue;
            };
            let text = text.map_err(|error| self.error(error.to_string()))?;
            payload.files.insert(item.path.clone(), (text.into_bytes(), item.mode.unwrap_or(mode)));
        }
        Ok(())
    }
}

/// Makes a folder hold exactly these files, seen all at once.
pub(super) fn write(dir: &Path, payload: &Payload, fs_group: Option<i64>) -> std::io::Result<()> {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    if holds_already(dir, payload) {
        return Ok(());
    }
    let old = std::fs::read_link(dir.join(DATA)).ok();
    let stamp = format!("..{}", jiff::Timestamp::now().as_nanosecond());
    let fresh = dir.join(&stamp);
    for (path, (content, mode)) in &payload.files {
        let relative = Path::new(path);
        let safe = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !safe {
            let why = format!("path {path} must stay in the volume");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        let file = fresh.join(relative);
        std::fs::create_dir_all(file.parent().unwrap_or(&fresh))?;
        std::fs::write(&file, content)?;
        // A group that owns the volume may read what is in it.
        let group = fs_group.and_then(|group| u32::try_from(group).ok());
        let mode = u32::try_from(*mode).unwrap_or(0o644) | if group.is_some() { 0o040 } else { 0 };
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode))?;
        if let Some(group) = group {
            chown(&file, None, Some(group))?;
        }
    }
    std::fs::create_dir_all(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
    let swap = dir.join("..data_tmp");
    let _ = std::fs::remove_file(&swap);
    symlink(&stamp, &swap)?;
    std::fs::rename(&swap, dir.join(DATA))?;
    link_names(dir, payload)?;
    if let Some(old) = old {
        std::fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

fn holds_already(dir: &Path, payload: &Payload) -> bool {
    let data = dir.join(DATA);
    !payload.files.is_empty()
        && payload.files.iter().all(|(path, (content, _))| {
            std::fs::read(data.join(path)).is_ok_and(|there| there == *content)
        })
        && top_names(payload) == visible_names(dir)
}

fn top_names(payload: &Payload) -> BTreeSet<String> {
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    payload.files.keys().map(first).collect()
}

fn visible_names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with(".."))
        .collect()
}

/// What a user sees are links through `..data`; names that left go too.
fn link_names(dir: &Path, payload: &Payload) -> std::io::Result<()> {
    let (wanted, there) = (top_names(payload), visible_names(dir));
    for name in there.difference(&wanted) {
        std::fs::remove_file(dir.join(name))?;
    }
    for name in wanted.difference(&there) {
        symlink(Path::new(DATA).join(name), dir.join(name))?;
    }
    Ok(())
}
