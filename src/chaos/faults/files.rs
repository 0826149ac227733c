//! Bits that are flipped in the files of a server that does not run.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How many bits are flipped: some will hit what is in use.
const BITS: u32 = 64;
/// A block of zeros is one that was never written.
const BLOCK_BYTES: u64 = 512;
/// How often a used block is looked for.
const ATTEMPTS: u32 = 64;

/// Flips bits in one file of a store, where it is written. Says where.
pub fn flip_bits(folder: &Path, seed: u64) -> anyhow::Result<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let (path, bytes) = choose(folder, &mut random)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let mut first = None;
    for _ in 0..BITS {
        let offset = used_offset(&file, bytes, &mut random)?;
        let mut byte = [0u8];
        file.read_exact_at(&mut byte, offset)?;
        byte[0] ^= 1 << random.random_range(0..8u8);
        file.write_all_at(&byte, offset)?;
        first.get_or_insert(offset);
    }
    file.sync_all()?;
    Ok(format!("{BITS} bits of {}, the first at offset {}", path.display(), first.unwrap_or(0)))
}

/// One of the files in use, the larger the likelier.
fn choose(folder: &Path, random: &mut StdRng) -> anyhow::Result<(PathBuf, u64)> {
    let files = files(folder)?;
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    if total == 0 {
        bail!("{} has no file to damage", folder.display());
    }
    let mut at = random.random_range(0..total);
    for (path, bytes) in files {
        if at < bytes {
            return Ok((path, bytes));
        }
        at -= bytes;
    }
    bail!("{} has no file to damage", folder.display())
}

/// Files with their bytes, in the order of their names; but spare ones, which nobody will read.
fn files(folder: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() {
                folders.push(entry.path());
            } else if !entry.file_name().to_string_lossy().starts_with("spare") {
                found.push((entry.path(), about.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A place in a block that is not all zeros.
fn used_offset(file: &File, bytes: u64, random: &mut StdRng) -> anyhow::Result<u64> {
    let mut offset = 0;
    for _ in 0..ATTEMPTS {
        offset = random.random_range(0..bytes);
        let start = offset - offset % BLOCK_BYTES;
        let length = usize::try_from(BLOCK_BYTES.min(bytes - start)).unwrap_or(0);
        let mut block = vec![0u8; length];
        file.read_exact_at(&mut block, start)?;
        if block.iter().any(|byte| *byte != 0) {
            break;
        }
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_flipped_where_something_is_written_and_in_no_spare_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("spare-0.free"), vec![1u8; 1 << 20]).unwrap();
        let mut content = vec![0u8; 64 << 10];
        content[..8192].fill(7);
        fs::write(folder.path().join("used"), &content).unwrap();
        let told = flip_bits(folder.path(), 3).unwrap();
        assert!(told.contains("used"), "{told}");
        let damaged = fs::read(folder.path().join("used")).unwrap();
        let changed = damaged.iter().zip(&content).filter(|(now, then)| now != then).count();
        assert!((1..=64).contains(&changed), "{changed}");
        assert_eq!(fs::read(folder.path().join("spare-0.free")).unwrap(), vec![1u8; 1 << 20]);
    }
}
