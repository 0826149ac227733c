//! The last known pods on disk: an agent that restarts while no API server answers goes on from
//! them, and stops nothing for want of an answer (N1).

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::paths::Paths;

/// The folder of last known pods.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    dir: PathBuf,
}

impl Checkpoint {
    /// The checkpoint of an agent; its folder is made if need be.
    pub fn open(paths: &Paths) -> std::io::Result<Self> {
        let dir = paths.checkpoint();
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// All pods in it. A file that cannot be read is skipped with a message: its pod is learnt
    /// again from the API.
    pub fn load(&self) -> Vec<Pod> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut pods = Vec::new();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let read = std::fs::read(&path).map_err(|error| error.to_string());
            let pod = read
                .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
            match pod {
                Ok(pod) => pods.push(pod),
                Err(error) => {
                    tracing::warn!(file = %path.display(), error, "skip a damaged checkpoint");
                }
            }
        }
        pods
    }

    /// Notes a pod. A failure is logged: it only matters if the agent restarts without an API.
    pub fn save(&self, pod: &Pod) {
        let path = self.file(crate::api::uid(pod));
        let draft = path.with_extension("new");
        let saved = serde_json::to_vec(pod)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&draft, text))
            .and_then(|()| std::fs::rename(&draft, &path));
        if let Err(error) = saved {
            tracing::warn!(file = %path.display(), %error, "the last known pod was not noted");
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) {
        let _ = std::fs::remove_file(self.file(uid));
    }

    fn file(&self, uid: &str) -> PathBuf {
        file(&self.dir, uid)
    }
}

/// Where a checkpoint's folder has the pod with this UID.
pub(crate) fn file(dir: &Path, uid: &str) -> PathBuf {
    dir.join(format!("{uid}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_come_back_and_damaged_ones_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(&Paths::new(dir.path())).unwrap();
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u1".into());
        pod.metadata.name = Some("web".into());
        checkpoint.save(&pod);
        std::fs::write(dir.path().join("checkpoint/u2.json"), "{ broken").unwrap();
        assert_eq!(checkpoint.load(), [pod]);
        checkpoint.remove("u1");
        assert!(checkpoint.load().is_empty());
    }
}
