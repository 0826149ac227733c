//! Packs one program as an OCI image archive: enough of tar and of the image layout for that, so
//! that a fresh machine needs neither tools nor network.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::paths::hex;

/// tar works in blocks of this size.
const BLOCK: usize = 512;

/// A file of an archive.
struct Entry<'a> {
    path: String,
    mode: u32,
    content: &'a [u8],
}

/// The bytes of an archive whose one image, called `name`, runs the static `program` as `/file`.
pub fn image_tar(name: &str, file: &str, program: &[u8], arch: &str) -> Vec<u8> {
    let architecture = if arch == "aarch64" { "arm64" } else { "amd64" };
    let layer = tar(&[Entry { path: file.to_owned(), mode: 0o755, content: program }]);
    let config = to_vec(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": [format!("/{file}")], "User": "65535:65535" },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created_by": "kontiki" }],
    }));
    let manifest = to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }));
    let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    listed["annotations"] = json!({ "io.containerd.image.name": name });
    listed["platform"] = json!({ "architecture": architecture, "os": "linux" });
    let index = to_vec(&json!({ "schemaVersion": 2, "manifests": [listed] }));

    let blob = |content| Entry {
        path: format!("blobs/sha256/{}", hex(&Sha256::digest(content))),
        mode: 0o644,
        content,
    };
    tar(&[
        Entry {
            path: "oci-layout".into(),
            mode: 0o644,
            content: br#"{"imageLayoutVersion":"1.0.0"}"#,
        },
        Entry { path: "index.json".into(), mode: 0o644, content: &index },
        blob(&layer),
        blob(&config),
        blob(&manifest),
    ])
}

fn to_vec(value: &serde_json::Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

fn descriptor(media_type: &str, content: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(&header(entry));
        bytes.extend_from_slice(entry.content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end an archive.
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// A ustar header; names are short, so the prefix field stays empty.
///
/// ```text
/// 0 name 100 mode 108 uid 116 gid 124 size 136 mtime 148 checksum 156 type 257 "ustar\0" "00"
/// ```
fn header(entry: &Entry<'_>) -> [u8; BLOCK] {
    assert!(entry.path.len() < 100, "path of an archive's entry must be short");
    let mut block = [0_u8; BLOCK];
    let mut put = |at: usize, text: &str| {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, &entry.path);
    put(100, &format!("{:07o}", entry.mode));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", entry.content.len()));
    put(136, "00000000000");
    // The checksum counts its own field as spaces.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let checksum = format!("{sum:06o}\0 ");
    block[148..156].copy_from_slice(checksum.as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_whole_blocks_and_tar_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        let bytes = image_tar("example.test/a:1", "pause", b"program", "x86_64");
        assert_eq!(bytes.len() % BLOCK, 0);
        std::fs::write(&file, bytes).unwrap();
        let listing = std::process::Command::new("tar").arg("tf").arg(&file).output().unwrap();
        assert!(listing.status.success(), "{}", String::from_utf8_lossy(&listing.stderr));
        let listing = String::from_utf8(listing.stdout).unwrap();
        assert!(listing.contains("oci-layout") && listing.contains("index.json"), "{listing}");
        assert_eq!(listing.lines().filter(|line| line.starts_with("blobs/sha256/")).count(), 3);
    }
}
