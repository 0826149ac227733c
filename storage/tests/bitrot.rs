//! Bits that change on disk below the engine: the data is there as it was written, or the engine
//! says that it is damaged. It never serves something else, and never less.

#![allow(clippy::unwrap_used)] // the helpers of tests may

use std::fs::File;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use kontiki_storage::engine::disk::DiskEngine;
use kontiki_storage::engine::{Batch, Durability, Engine, EngineError, Tree};

const KEYS: u64 = 1500;
const FLIPS: u64 = 24;

fn value(number: u64, round: u8) -> Bytes {
    let byte = u8::try_from(number % 200).unwrap().wrapping_add(round);
    vec![byte; 4000].into()
}

/// Fills the engine until the journal has nothing any more of what was written first.
fn fill(directory: &Path) {
    let engine = DiskEngine::open(directory).unwrap();
    for round in 0..4 {
        for first in (0..KEYS).step_by(100) {
            let mut batch = Batch::default();
            for number in first..first + 100 {
                batch.put(Tree::Versions, number.to_be_bytes().to_vec(), value(number, round));
            }
            engine.write(batch, Durability::Later).unwrap();
        }
        engine.settle().unwrap();
    }
    for number in 0..3_u8 {
        // A step brings the checkpoint of the one before it to the disk.
        let mut batch = Batch::default();
        batch.put(Tree::Meta, "step", vec![number; 3 << 20]);
        engine.write(batch, Durability::Now).unwrap();
        engine.settle().unwrap();
    }
}

/// Whether the data is as it was written; an error where the engine admits damage.
fn read(directory: &Path) -> Result<bool, EngineError> {
    let engine = DiskEngine::open(directory)?;
    let mut due = 0_u64;
    let mut right = true;
    engine.scan(Tree::Versions, Bound::Unbounded, Bound::Unbounded, &mut |key, found| {
        right &= key == due.to_be_bytes() && found == value(due, 3);
        due += 1;
        ControlFlow::Continue(())
    })?;
    Ok(right && due == KEYS)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_in_sleds_file_is_admitted_or_does_no_harm() {
    let parent = tempfile::tempdir().unwrap();
    let whole = parent.path().join("whole");
    fill(&whole);
    assert!(read(&whole).unwrap());
    let size = std::fs::metadata(whole.join("sled/db")).unwrap().len();
    let mut admitted = 0;
    for flip in 0..FLIPS {
        let damaged = parent.path().join("damaged");
        copy(&whole, &damaged);
        let file = File::options().read(true).write(true).open(damaged.join("sled/db")).unwrap();
        let offset = size / FLIPS * flip + flip * 997 % (size / FLIPS);
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
        let outcome = std::panic::catch_unwind(|| read(&damaged));
        match outcome.expect("a flipped bit must not make it panic") {
            Ok(right) => assert!(right, "a bit flipped at {offset} went unseen"),
            Err(_) => admitted += 1,
        }
        std::fs::remove_dir_all(&damaged).unwrap();
    }
    assert!(admitted > 0, "some of the flips must have met data");
}

#[test]
fn files_of_sled_that_are_cut_or_gone_are_admitted() {
    let parent = tempfile::tempdir().unwrap();
    let whole = parent.path().join("whole");
    fill(&whole);
    let size = std::fs::metadata(whole.join("sled/db")).unwrap().len();
    for part in 0..8 {
        let damaged = parent.path().join(format!("cut {part}"));
        copy(&whole, &damaged);
        let file = File::options().write(true).open(damaged.join("sled/db")).unwrap();
        file.set_len(size / 8 * part).unwrap();
        let outcome = std::panic::catch_unwind(|| read(&damaged));
        if let Ok(right) = outcome.expect("a cut file must not make it panic") {
            assert!(right, "what was cut off at {part}/8 went unseen");
        }
    }
    std::fs::remove_dir_all(whole.join("sled")).unwrap();
    let refusal = read(&whole).unwrap_err().to_string();
    assert!(refusal.contains("a segment before it is missing"), "{refusal}");
}
