//! Static pods: those that files of the node describe. They run without any server; in the API,
//! mirror pods show them ([`crate::mirrors`]).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration, Volume};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::uid;
use crate::env::referred;
use crate::paths::hex;

/// Where a pod comes from: the API, or a file of its node.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// What a static pod's file says, as a number.
pub const HASH: &str = "kubernetes.io/config.hash";
/// When that was read.
pub const SEEN: &str = "kubernetes.io/config.seen";
/// A pod that only shows in the API what its node runs by itself, and the number of what.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Between two looks at the folder.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of the number, as many as upstream's.
const HASH_BYTES: usize = 16;

/// An annotation of a pod.
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// True for a pod that a file describes.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE).is_some_and(|source| source != "api")
}

/// Reads the folder again and again until `shutdown`, and sends all pods in it when they change.
/// Without a folder there are none, which is also worth knowing.
pub async fn run(
    folder: Option<PathBuf>,
    node: String,
    found: mpsc::Sender<Vec<Pod>>,
    shutdown: CancellationToken,
) {
    let work = async {
        let mut known: Option<BTreeSet<String>> = None;
        loop {
            let (folder, node) = (folder.clone(), node.clone());
            let read = move || folder.map_or_else(|| Ok(Vec::new()), |folder| read(&folder, &node));
            let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other);
            match read.flatten() {
                Ok(pods) => {
                    let uids: BTreeSet<String> =
                        pods.iter().map(|pod| uid(pod).to_owned()).collect();
                    if known.as_ref() != Some(&uids) {
                        known = Some(uids);
                        if found.send(pods).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "static pods stay as they were read last"),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

/// The pods that the files of a folder describe; hidden files and folders are left out, and a folder
/// that is not there has none. A file that cannot be read, or is none of a pod, is reported and does
/// not keep the others out. The error is the folder's: what is in it is not known.
pub fn read(folder: &Path, node: &str) -> std::io::Result<Vec<Pod>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let mut pods: Vec<Pod> = Vec::new();
    for file in files {
        let text = std::fs::read(&file).map_err(|error| error.to_string());
        match text.and_then(|text| settled(&text, &file, node)) {
            Ok(pod) if pods.iter().any(|other| is_named_like(other, &pod)) => {
                tracing::error!(file = %file.display(), "another file has a pod of this name");
            }
            Ok(pod) => pods.push(pod),
            Err(why) => tracing::error!(file = %file.display(), why, "skip a static pod"),
        }
    }
    Ok(pods)
}

fn is_named_like(one: &Pod, other: &Pod) -> bool {
    let name = |pod: &Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    name(one) == name(other)
}

/// The pod that a file describes, as this node runs it.
fn settled(text: &[u8], file: &Path, node: &str) -> Result<Pod, String> {
    let mut pod = decoded(text)?;
    let name = pod.metadata.name.take().filter(|name| !name.is_empty());
    let name = name.ok_or("the pod has no name")?;
    if let Some(resource) = reference(&pod) {
        return Err(format!("static pods may not reference {resource}"));
    }
    let hash = hash(&pod, &name, file, node)?;
    pod.metadata.name = Some(format!("{name}-{}", node.to_lowercase()));
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    if pod.metadata.uid.as_deref().unwrap_or_default().is_empty() {
        pod.metadata.uid = Some(hash.clone());
    }
    pod.metadata.creation_timestamp = None;
    pod.status = None;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.remove(MIRROR);
    let seen = Timestamp::now().to_string();
    for (key, value) in [(HASH, hash), (SOURCE, "file".to_owned()), (SEEN, seen)] {
        annotations.insert(key.to_owned(), value);
    }
    let spec = pod.spec.as_mut().filter(|spec| !spec.containers.is_empty());
    let spec = spec.ok_or("the pod has no containers")?;
    spec.node_name = Some(node.to_owned());
    // Whatever is wrong with the node, it goes on.
    let stays = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&stays) {
        tolerations.push(stays);
    }
    Ok(pod)
}

fn decoded(text: &[u8]) -> Result<Pod, String> {
    // All JSON is YAML.
    let value: serde_json::Value =
        serde_yaml_ng::from_slice(text).map_err(|error| error.to_string())?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err("expected a Pod of v1".to_owned());
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// A number for what a file says, of this file and node.
fn hash(pod: &Pod, name: &str, file: &Path, node: &str) -> Result<String, String> {
    let text = serde_json::to_vec(pod).map_err(|error| error.to_string())?;
    let mut digest = Sha256::new();
    for part in [name.as_bytes(), &text, node.as_bytes(), file.as_os_str().as_encoded_bytes()] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    Ok(hex(&digest.finalize()[..HASH_BYTES]))
}

/// What of the API a pod refers to: there may be none.
fn reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let is_given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if is_given(&spec.service_account_name) || is_given(&spec.service_account) {
        return Some("serviceaccounts");
    }
    let (config_maps, secrets) = referred(pod);
    if !secrets.is_empty() || spec.image_pull_secrets.iter().flatten().next().is_some() {
        return Some("secrets");
    }
    if !config_maps.is_empty() {
        return Some("configmaps");
    }
    if spec.resource_claims.iter().flatten().next().is_some() {
        return Some("resourceclaims");
    }
    spec.volumes.iter().flatten().find_map(|volume: &Volume| {
        let sources = || volume.projected.iter().flat_map(|all| all.sources.iter().flatten());
        match volume {
            _ if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() => {
                Some("persistentvolumeclaims")
            }
            _ if volume.csi.is_some() => Some("csidrivers"),
            _ if sources().any(|source| source.service_account_token.is_some()) => {
                Some("serviceaccounts")
            }
            _ if sources().any(|source| source.cluster_trust_bundle.is_some()) => {
                Some("clustertrustbundles")
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: i:1\n";

    #[test]
    fn files_of_both_forms_are_pods_named_for_their_node() {
        let dir = tempfile::tempdir().unwrap();
        let json = r#"{ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "api", "namespace": "kube-system" },
            "spec": { "containers": [{ "name": "c", "image": "i:1" }] } }"#;
        std::fs::write(dir.path().join("a.json"), json).unwrap();
        std::fs::write(dir.path().join("web.yaml"), WEB).unwrap();
        std::fs::write(dir.path().join(".hidden"), WEB).unwrap();
        std::fs::write(dir.path().join("z again.yaml"), WEB).unwrap();
        std::fs::write(dir.path().join("broken.yaml"), "kind: [").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let pods = read(dir.path(), "N1").unwrap();
        let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["api-n1", "web-n1"]);
        let web = &pods[1];
        assert_eq!(web.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(web.spec.as_ref().unwrap().node_name.as_deref(), Some("N1"));
        assert_eq!(annotation(web, SOURCE), Some("file"));
        assert_eq!(annotation(web, HASH), Some(uid(web)));
        assert!(is_static(web) && uid(web).len() == 32, "{}", uid(web));
    }

    /// All of them were ended, because nothing could be read.
    #[tokio::test]
    async fn a_folder_that_cannot_be_read_ends_no_pod_and_one_that_is_gone_ends_all() {
        let dir = tempfile::tempdir().unwrap();
        let [folder, files, none] = ["pods", "files", "none"].map(|name| dir.path().join(name));
        std::fs::create_dir(&files).unwrap();
        std::fs::write(files.join("web.yaml"), WEB).unwrap();
        std::os::unix::fs::symlink(&files, &folder).unwrap();
        let (found, mut told) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(Some(folder.clone()), "n1".into(), found, stop.clone()));
        assert_eq!(told.recv().await.unwrap().len(), 1);
        // Exchanged in one step for what is no folder.
        let draft = dir.path().join("draft");
        std::fs::write(&none, "").unwrap();
        std::os::unix::fs::symlink(&none, &draft).unwrap();
        std::fs::rename(&draft, &folder).unwrap();
        assert!(read(&folder, "n1").is_err());
        assert!(tokio::time::timeout(LOOK * 3, told.recv()).await.is_err(), "all stay");
        std::fs::remove_file(&folder).unwrap();
        assert!(told.recv().await.unwrap().is_empty());
        stop.cancel();
        running.await.unwrap();
    }

    #[test]
    fn another_text_file_or_node_is_another_pod() {
        let of = |text: &str, file: &str, node| {
            uid(&settled(text.as_bytes(), Path::new(file), node).unwrap()).to_owned()
        };
        let first = of(WEB, "/m/web", "n1");
        assert_eq!(first, of(WEB, "/m/web", "n1"));
        let all = [
            of(&WEB.replace("i:1", "i:2"), "/m/web", "n1"),
            of(WEB, "/m/x", "n1"),
            of(WEB, "/m/web", "n2"),
        ];
        assert!(!all.contains(&first));
    }

    #[test]
    fn what_needs_the_api_is_refused() {
        for (more, resource) in [
            ("  serviceAccountName: x\n", "serviceaccounts"),
            ("  volumes:\n  - { name: v, secret: { secretName: s } }\n", "secrets"),
            ("  volumes:\n  - { name: v, configMap: { name: s } }\n", "configmaps"),
            (
                "  volumes:\n  - { name: v, persistentVolumeClaim: { claimName: s } }\n",
                "persistentvolumeclaims",
            ),
        ] {
            let why =
                settled(format!("{WEB}{more}").as_bytes(), Path::new("/f"), "n1").unwrap_err();
            assert_eq!(why, format!("static pods may not reference {resource}"));
        }
        for (text, expected) in [
            ("apiVersion: v1\nkind: Service\n", "expected a Pod"),
            ("apiVersion: v1\nkind: Pod\nmetadata: { name: x }\n", "no containers"),
            ("apiVersion: v1\nkind: Pod\nspec: { containers: [] }\n", "no name"),
        ] {
            let why = settled(text.as_bytes(), Path::new("/f"), "n1").unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }
}
