//! Measures acknowledged entries per second of the disk engine, sled behind it included:
//! `cargo run --release -p kontiki-storage --example engine_speed [directory]`.
//!
//! It is a Raft log: entries of 1 KiB are appended in batches of B and synced, the last 8,000 kept.
//! Beside it stands what the disk itself gives in the same minute: the same bytes to a preallocated
//! file, with an fdatasync for each batch.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kontiki_storage::engine::disk::DiskEngine;
use kontiki_storage::engine::{Batch, Durability, Engine, Tree};

const ENTRY_BYTES: usize = 1024;
const KEPT: u64 = 8000;
const RUN: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:>8} {:>5} {:>12} {:>9} {:>9} {:>9}",
        "", "B", "entries/s", "p50 ms", "p99 ms", "worst"
    );
    for size in [1, 8, 64] {
        let directory = parent.join(format!("engine-speed-{}-{size}", std::process::id()));
        std::fs::create_dir(&directory)?;
        println!("{:>8} {size:>5} {}", "engine", measure_engine(&directory.join("engine"), size)?);
        println!("{:>8} {size:>5} {}", "raw file", measure_file(&directory.join("raw"), size)?);
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

/// Calls `write` for [`RUN`], which writes a batch of `size` entries and syncs.
fn measure(
    size: u64,
    mut write: impl FnMut(u64) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut latencies = Vec::new();
    let began = Instant::now();
    let mut index = 0;
    while began.elapsed() < RUN {
        let sent = Instant::now();
        write(index)?;
        latencies.push(sent.elapsed());
        index += size;
    }
    let seconds = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100].as_secs_f64() * 1e3;
    #[allow(clippy::cast_precision_loss)] // a rate for people
    let rate = index as f64 / seconds;
    Ok(format!("{rate:>12.0} {:>9.2} {:>9.2} {:>9.2}", at(50), at(99), at(100)))
}

fn measure_engine(directory: &Path, size: u64) -> Result<String, Box<dyn std::error::Error>> {
    let engine = DiskEngine::open(directory)?;
    let report = measure(size, |first| {
        let mut batch = Batch::default();
        for index in first..first + size {
            let mut entry = vec![u8::try_from(index % 251)?; ENTRY_BYTES];
            entry[..8].copy_from_slice(&index.to_be_bytes());
            batch.put(Tree::Log, index.to_be_bytes().to_vec(), Bytes::from(entry));
        }
        if first > KEPT && first % 1024 < size {
            let upto = (first - KEPT).to_be_bytes().to_vec();
            batch.delete_range(Tree::Log, Bytes::new(), upto);
        }
        Ok(engine.write(batch, Durability::Now)?)
    })?;
    assert!(engine.blobs()?.is_empty(), "sled must make no blobs");
    Ok(report)
}

fn measure_file(path: &Path, size: u64) -> Result<String, Box<dyn std::error::Error>> {
    const FILE_BYTES: u64 = 16 << 20;
    let file = File::create(path)?;
    file.write_all_at(&vec![0; usize::try_from(FILE_BYTES)?], 0)?;
    file.sync_all()?;
    let bytes = vec![7; ENTRY_BYTES * usize::try_from(size)?];
    measure(size, |first| {
        file.write_all_at(&bytes, first * ENTRY_BYTES as u64 % (FILE_BYTES - bytes.len() as u64))?;
        Ok(file.sync_data()?)
    })
}
