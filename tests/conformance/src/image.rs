//! A small image made on the spot, so that no test needs a registry: Debian's static busybox.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

/// Where Debian's package busybox-static puts it.
pub const BUSYBOX: &str = "/bin/busybox";

/// Writes an OCI archive with busybox under `name` (as `docker.io/library/busybox:1`) into `folder`.
///
/// # Panics
/// When busybox is missing or the folder cannot be written.
pub fn write_busybox(folder: &Path, name: &str) {
    let busybox = fs::read(BUSYBOX).expect("busybox-static must be installed");
    let layer = tar(&layer_entries(busybox));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let mut index = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    index["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [index]}).to_string().into_bytes();

    let mut entries = vec![
        Entry::file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(), 0o644),
        Entry::file("index.json", index, 0o644),
    ];
    for blob in [layer, config, manifest] {
        let path = format!("blobs/{}", digest(&blob).replace(':', "/"));
        entries.push(Entry::file(&path, blob, 0o644));
    }
    fs::create_dir_all(folder).expect("the image folder must be writable");
    let mut archive = File::create(folder.join("busybox.tar")).expect("it must be writable");
    archive.write_all(&tar(&entries)).expect("the archive must be written");
}

fn layer_entries(busybox: Vec<u8>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = ["bin", "etc", "proc", "sys", "dev", "root", "var", "www"]
        .iter()
        .map(|name| Entry::folder(name))
        .collect();
    entries.push(Entry { path: "tmp/".to_owned(), mode: 0o1777, kind: b'5', ..Entry::default() });
    entries.push(Entry::file("bin/busybox", busybox, 0o755));
    for applet in [
        "sh", "httpd", "sleep", "cat", "echo", "wget", "hostname", "id", "ls", "tail", "env",
        "tar", "test", "seq", "stty",
    ] {
        entries.push(Entry {
            path: format!("bin/{applet}"),
            link: "busybox".to_owned(),
            mode: 0o777,
            kind: b'2',
            ..Entry::default()
        });
    }
    entries.push(Entry::file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n".to_vec(), 0o644));
    entries.push(Entry::file("etc/group", b"root:x:0:\n".to_vec(), 0o644));
    entries
}

/// A member of a tar archive.
#[derive(Default)]
struct Entry {
    path: String,
    body: Vec<u8>,
    link: String,
    mode: u32,
    /// `0` file, `2` symbolic link, `5` folder, as tar has it.
    kind: u8,
}

impl Entry {
    fn file(path: &str, body: Vec<u8>, mode: u32) -> Self {
        Self { path: path.to_owned(), body, mode, kind: b'0', ..Self::default() }
    }

    fn folder(path: &str) -> Self {
        Self { path: format!("{path}/"), mode: 0o755, kind: b'5', ..Self::default() }
    }
}

/// The ustar format: a header of 512 bytes before each body, bodies padded to 512.
fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        let mut header = [0u8; 512];
        put(&mut header, 0, entry.path.as_bytes());
        put(&mut header, 100, format!("{:07o}", entry.mode).as_bytes());
        put(&mut header, 108, b"0000000");
        put(&mut header, 116, b"0000000");
        put(&mut header, 124, format!("{:011o}", entry.body.len()).as_bytes());
        put(&mut header, 136, b"00000000000");
        put(&mut header, 148, b"        ");
        header[156] = entry.kind;
        put(&mut header, 157, entry.link.as_bytes());
        put(&mut header, 257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(&entry.body);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn put(header: &mut [u8; 512], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}
