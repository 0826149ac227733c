//! Images that come from files: the archives a user lays down for air-gapped use, and the sandbox
//! image that the agent brings along.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::agent::AgentError;
use crate::paths::Paths;
use crate::preflight::find_program;
use crate::runtime::Runtime;

pub mod archive;
pub mod collect;
pub mod credentials;
pub mod pause;

/// containerd keeps what CRI sees in this namespace.
const CRI_NAMESPACE: &str = "k8s.io";
/// Longest wait for one archive.
const IMPORT_DEADLINE: Duration = Duration::from_secs(600);

/// Brings the sandbox image and the user's archives into containerd.
#[derive(Debug)]
pub struct Importer {
    ctr: PathBuf,
    socket: PathBuf,
    snapshotter: Option<&'static str>,
    notes: PathBuf,
}

impl Importer {
    /// Imports by way of the containerd on `socket`.
    pub fn new(
        paths: &Paths,
        socket: &Path,
        snapshotter: Option<&'static str>,
    ) -> Result<Self, AgentError> {
        let ctr = find_program("ctr").ok_or_else(|| AgentError::Missing("ctr".into()))?;
        let dir = paths.images();
        std::fs::create_dir_all(&dir)
            .map_err(|source| AgentError::io("create the folder", &dir, source))?;
        Ok(Self {
            ctr,
            socket: socket.to_path_buf(),
            snapshotter,
            notes: dir.join("imported.json"),
        })
    }

    /// Makes sure that the sandbox image is there.
    pub async fn pause_image(&self, runtime: &dyn Runtime) -> Result<(), AgentError> {
        let present = runtime
            .image(pause::NAME)
            .await
            .map_err(|error| AgentError::Runtime(format!("look for {}: {error}", pause::NAME)))?;
        if present.is_some() {
            return Ok(());
        }
        let program = pause::program(std::env::consts::ARCH).ok_or_else(|| {
            AgentError::Config(format!(
                "no sandbox image of our own for {}: name one",
                std::env::consts::ARCH
            ))
        })?;
        let tar = archive::image_tar(pause::NAME, "pause", &program, std::env::consts::ARCH);
        let file = self.notes.with_file_name("pause.tar");
        std::fs::write(&file, tar).map_err(|source| AgentError::io("write", &file, source))?;
        self.import(&file).await.map(drop)
    }

    /// Imports each `*.tar` of `dir` that is new or changed. An archive that cannot be read is
    /// reported and does not keep the others out. Answers the names of all images from there.
    pub async fn folder(&self, dir: &Path) -> Result<BTreeSet<String>, AgentError> {
        let entries = std::fs::read_dir(dir)
            .map_err(|source| AgentError::io("read the images folder", dir, source))?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
            .collect();
        files.sort();
        let mut notes = self.read_notes();
        for file in files {
            let key = file.display().to_string();
            let stamp = stamp(&file);
            if stamp.is_some() && notes.get(&key).map(|note| &note.stamp) == stamp.as_ref() {
                continue;
            }
            match self.import(&file).await {
                Ok(images) => {
                    tracing::info!(file = %key, "imported images");
                    notes.extend(stamp.map(|stamp| (key, Note { stamp, images })));
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "skip an archive");
                }
            }
        }
        let text = serde_json::to_string_pretty(&notes)
            .map_err(|source| AgentError::io("encode", &self.notes, source.into()))?;
        std::fs::write(&self.notes, text)
            .map_err(|source| AgentError::io("write", &self.notes, source))?;
        Ok(notes.into_values().flat_map(|note| note.images).collect())
    }

    /// Imports an archive; answers the names of its images.
    async fn import(&self, file: &Path) -> Result<Vec<String>, AgentError> {
        let mut command = tokio::process::Command::new(&self.ctr);
        command.arg("--address").arg(&self.socket).args(["--namespace", CRI_NAMESPACE]);
        command.args(["images", "import"]);
        if let Some(snapshotter) = self.snapshotter {
            command.args(["--snapshotter", snapshotter]);
        }
        command.arg(file).stdin(Stdio::null()).kill_on_drop(true);
        let failed = |why: String| {
            AgentError::Runtime(format!("import the images of {}: {why}", file.display()))
        };
        let output = tokio::time::timeout(IMPORT_DEADLINE, command.output())
            .await
            .map_err(|_| failed(format!("took over {} s", IMPORT_DEADLINE.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(unpacked(&String::from_utf8_lossy(&output.stdout)));
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    fn read_notes(&self) -> BTreeMap<String, Note> {
        // Notes that cannot be read cost a second import, which changes nothing.
        std::fs::read(&self.notes)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }
}

/// What is known of an archive that was imported.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    /// By which a change is seen.
    stamp: String,
    /// The names of its images.
    images: Vec<String>,
}

/// The names in lines such as `unpacking docker.io/library/web:1 (sha256:…)...done`.
fn unpacked(output: &str) -> Vec<String> {
    let name =
        |line: &str| line.trim().strip_prefix("unpacking ")?.split(' ').next().map(str::to_owned);
    output.lines().filter_map(name).filter(|name| !name.is_empty()).collect()
}

/// Size and time of change: what tells a changed archive.
fn stamp(file: &Path) -> Option<String> {
    let meta = std::fs::metadata(file).ok()?;
    let changed = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} bytes, {} ns", meta.len(), changed.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_imported_images_are_found_in_what_ctr_prints() {
        let output = "unpacking docker.io/library/web:1 (sha256:0a)...done\n\
                      unpacking example.com/a/b:2 (sha256:0b)...done\n";
        assert_eq!(unpacked(output), ["docker.io/library/web:1", "example.com/a/b:2"]);
        assert!(unpacked("importing\n").is_empty());
    }
}
