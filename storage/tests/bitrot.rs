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
const LAST_ROUND: u8 = 3;

/// What a value begins with: found in the file, it is that value of that round and no other.
fn mark(number: u64, round: u8) -> String {
    format!("<value {number} of round {round}>")
}

fn value(number: u64, round: u8) -> Bytes {
    // Never zero, with which sled fills its segments up.
    let byte = u8::try_from(number % 200).unwrap() + round + 1;
    let mut bytes = mark(number, round).into_bytes();
    bytes.resize(4000, byte);
    bytes.into()
}

/// Fills the engine until the journal has nothing any more of what was written first.
fn fill(directory: &Path) {
    let engine = DiskEngine::open(directory).unwrap();
    for round in 0..=LAST_ROUND {
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
        batch.put(Tree::Meta, "step", vec![number + 1; 3 << 20]);
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
        right &= key == due.to_be_bytes() && found == value(due, LAST_ROUND);
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

/// Flips a bit at each of the offsets.
fn flip(directory: &Path, offsets: &[u64]) {
    let path = directory.join("sled/db");
    let file = File::options().read(true).write(true).open(path).unwrap();
    for offset in offsets {
        let mut byte = [0];
        file.read_exact_at(&mut byte, *offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], *offset).unwrap();
    }
}

/// What [`read`] says of a copy with those bits flipped.
fn read_with_flips(whole: &Path, offsets: &[u64]) -> Result<bool, EngineError> {
    let damaged = whole.with_file_name("damaged");
    copy(whole, &damaged);
    flip(&damaged, offsets);
    let outcome = std::panic::catch_unwind(|| read(&damaged));
    std::fs::remove_dir_all(&damaged).unwrap();
    outcome.expect("a flipped bit must not make it panic")
}

#[test]
fn a_flipped_bit_in_sleds_file_is_admitted_or_does_no_harm() {
    let parent = tempfile::tempdir().unwrap();
    let whole = parent.path().join("whole");
    fill(&whole);
    assert!(read(&whole).unwrap());
    let size = std::fs::metadata(whole.join("sled/db")).unwrap().len();
    for flip in 0..FLIPS {
        let offset = size / FLIPS * flip + flip * 997 % (size / FLIPS);
        if let Ok(right) = read_with_flips(&whole, &[offset]) {
            assert!(right, "a bit flipped at {offset} went unseen");
        }
    }
}

/// Where the copies of a value are in sled's file.
///
/// Where flips land by chance is mostly what sled has freed: how much of it depends on the moment of
/// its flushes. So the copies of some values are looked for.
fn copies(whole: &Path, number: u64) -> Vec<u64> {
    let bytes = std::fs::read(whole.join("sled/db")).unwrap();
    let mark = mark(number, LAST_ROUND).into_bytes();
    let copies: Vec<u64> = memchr::memmem::find_iter(&bytes, &mark)
        .map(|at| u64::try_from(at + 100).unwrap())
        .collect();
    assert!(!copies.is_empty(), "value {number} is not in sled's file");
    copies
}

#[test]
fn a_flipped_bit_in_each_copy_of_a_value_is_admitted() {
    let parent = tempfile::tempdir().unwrap();
    let whole = parent.path().join("whole");
    fill(&whole);
    for number in [0, KEYS / 2, KEYS - 1] {
        let copies = copies(&whole, number);
        let outcome = read_with_flips(&whole, &copies);
        assert!(outcome.is_err(), "value {number}, damaged at {copies:?}, was served: {outcome:?}");
    }
}

/// What a power cut left unfinished is tolerated, and would be refused as rot at the start after that:
/// it is there until sled uses its segment again. Here it is in what fills segments up, which does
/// sled no harm.
#[test]
fn what_looks_like_rot_after_a_power_cut_is_tolerated_as_long_as_it_is_there() {
    const SEGMENT: usize = 2 << 20;
    let parent = tempfile::tempdir().unwrap();
    let whole = parent.path().join("whole");
    fill(&whole);
    let bytes = std::fs::read(whole.join("sled/db")).unwrap();
    let mut tolerated = 0;
    for (number, segment) in bytes.chunks_exact(SEGMENT).enumerate() {
        let is_filled_up = segment.ends_with(&[0; 300]) && segment[..20] != [0; 20];
        let damaged = parent.path().join(format!("damaged {number}"));
        copy(&whole, &damaged);
        flip(&damaged, &[u64::try_from((number + 1) * SEGMENT - 100).unwrap()]);
        // The end of the log is not looked at.
        if is_filled_up && read(&damaged).is_err() {
            std::fs::write(damaged.join("RUNNING"), "another boot").unwrap();
            for start in ["first", "second"] {
                assert!(read(&damaged).unwrap(), "{start} start");
            }
            tolerated += 1;
        }
        std::fs::remove_dir_all(&damaged).unwrap();
    }
    assert!(tolerated > 0, "no segment was filled up");
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
