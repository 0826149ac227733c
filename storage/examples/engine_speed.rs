//! Measures acknowledged entries per second of the disk engine, sled behind it included:
//! `cargo run --release -p kontiki-storage --example engine_speed [directory]`.
//!
//! It is a Raft log: entries of 1 KiB are appended in batches of B and synced, the last 8,000 kept.

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
    println!("{:>5} {:>12} {:>10} {:>10} {:>10}", "B", "entries/s", "p50 ms", "p99 ms", "worst ms");
    for size in [1, 8, 64] {
        let directory = parent.join(format!("engine-speed-{}-{size}", std::process::id()));
        let report = measure(&directory, size)?;
        std::fs::remove_dir_all(&directory)?;
        println!("{size:>5} {report}");
    }
    Ok(())
}

fn measure(directory: &Path, size: u64) -> Result<String, Box<dyn std::error::Error>> {
    let engine = DiskEngine::open(directory)?;
    let mut index = 0_u64;
    let mut latencies = Vec::new();
    let began = Instant::now();
    while began.elapsed() < RUN {
        let mut batch = Batch::default();
        for _ in 0..size {
            let mut entry = vec![u8::try_from(index % 251)?; ENTRY_BYTES];
            entry[..8].copy_from_slice(&index.to_be_bytes());
            batch.put(Tree::Log, index.to_be_bytes().to_vec(), Bytes::from(entry));
            index += 1;
        }
        if index > KEPT && index % 1024 < size {
            let upto = (index - KEPT).to_be_bytes().to_vec();
            batch.delete_range(Tree::Log, Bytes::new(), upto);
        }
        let sent = Instant::now();
        engine.write(batch, Durability::Now)?;
        latencies.push(sent.elapsed());
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!(engine.blobs()?.is_empty(), "sled must make no blobs");
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100].as_secs_f64() * 1e3;
    #[allow(clippy::cast_precision_loss)] // a rate for people
    let rate = index as f64 / seconds;
    Ok(format!("{rate:>12.0} {:>10.2} {:>10.2} {:>10.2}", at(50), at(99), at(100)))
}
