//! A process that writes is killed with SIGKILL again and again: what it acknowledged is there
//! afterwards, in whole batches.
//!
//! The process is this test binary itself, told by its environment to write. It writes a line for
//! every batch that was acknowledged; the lines are what is checked.

#![allow(clippy::unwrap_used)] // the helpers of tests may

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use kontiki_storage::engine::disk::DiskEngine;
use kontiki_storage::engine::{Batch, Durability, Engine, EngineError, Room, Tree};

mod crash {
    mod disk;
    mod power_loss;
    mod trace;
}

const DIRECTORY: &str = "KONTIKI_TEST_CRASH_DIRECTORY";

/// After how many batches each writer ends by itself; never without it.
const BATCHES: &str = "KONTIKI_TEST_CRASH_BATCHES";

/// How many batches a writer that ends by itself writes between two times that sled gets all.
const SETTLE_EVERY: u64 = 25;

const KILLS: u64 = 24;
const WRITERS: usize = 4;

/// Every batch has this many keys.
const PARTS: u64 = 3;

/// How many of its own batches a writer keeps; it purges those before, as a log does.
const KEPT: u64 = 200;

fn key(writer: u64, number: u64, part: u64) -> Vec<u8> {
    [writer, number, part].iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// What a batch holds under each of its keys: small values, large ones, and some in fragments.
fn value(writer: u64, number: u64) -> Bytes {
    let size = match number % 50 {
        0 => 40_000,
        1..10 => 4_000,
        _ => 600,
    };
    vec![u8::try_from((writer * 7 + number) % 251).unwrap(); size].into()
}

fn batch(writer: u64, number: u64) -> Batch {
    let mut batch = Batch::default();
    for part in 0..PARTS {
        batch.put(Tree::Log, key(writer, number, part), value(writer, number));
    }
    if number > KEPT && number.is_multiple_of(32) {
        batch.delete_range(Tree::Log, key(writer, 0, 0), key(writer, number - KEPT, 0));
    }
    batch.put(Tree::Meta, format!("last of {writer}"), number.to_be_bytes().to_vec());
    batch
}

fn last_of(engine: &dyn Engine, writer: u64) -> Option<u64> {
    let record = engine.get(Tree::Meta, format!("last of {writer}").as_bytes()).unwrap()?;
    Some(u64::from_be_bytes(record[..].try_into().unwrap()))
}

/// The life of the process that is killed; as a test of its own, without its environment, nothing.
#[test]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let engine = match DiskEngine::open(Path::new(&directory)) {
        Ok(engine) => engine,
        Err(error) => {
            acknowledge(&format!("error {error}: {:?}", std::error::Error::source(&error)));
            return;
        }
    };
    acknowledge("open");
    let limit = std::env::var(BATCHES).map_or(u64::MAX, |batches| batches.parse().unwrap());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS as u64 {
            let engine = &engine;
            scope.spawn(move || {
                let begin = last_of(engine, writer).map_or(0, |last| last + 1);
                for number in begin..limit {
                    if limit < u64::MAX && writer == 0 && number % SETTLE_EVERY == 0 {
                        engine.settle().unwrap();
                    }
                    // One in five is made durable by what follows it, as an apply is by the log.
                    let later = (number + writer) % 5 == 0;
                    // On a full disk nothing that grows is written, as callers must.
                    while engine.room() != Room::Ample {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    let durability = if later { Durability::Later } else { Durability::Now };
                    if let Err(error) = engine.write(batch(writer, number), durability) {
                        acknowledge(&format!(
                            "error {error}: {:?}",
                            std::error::Error::source(&error)
                        ));
                        return;
                    }
                    if !later {
                        acknowledge(&format!("acknowledged {writer} {number}"));
                    }
                }
            });
        }
    });
}

fn acknowledge(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\n{line}");
    let _ = out.flush();
}

fn writer_process(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a writer process said before it died: the last number acknowledged to each writer.
#[derive(Default)]
struct Heard {
    acknowledged: [Option<u64>; WRITERS],
    count: u64,
    errors: Vec<String>,
}

impl Heard {
    fn line(&mut self, line: &str) {
        if let Some(error) = line.strip_prefix("error ") {
            self.errors.push(error.to_owned());
        } else if let Some(rest) = line.strip_prefix("acknowledged ") {
            let (writer, number) = rest.split_once(' ').unwrap();
            let writer: usize = writer.parse().unwrap();
            self.acknowledged[writer] = Some(number.parse().unwrap());
            self.count += 1;
        }
    }
}

/// Runs a writer process and kills it after so many acknowledgements.
fn run_and_kill(directory: &Path, after: u64) -> Heard {
    let mut child = writer_process(directory);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heard = Heard::default();
    for line in lines.by_ref().map_while(Result::ok) {
        heard.line(&line);
        if heard.count >= after {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had said before it died counts too.
    lines.map_while(Result::ok).for_each(|line| heard.line(&line));
    heard
}

fn check(engine: &dyn Engine, heard: &Heard) {
    for (writer, acknowledged) in (0..).zip(heard.acknowledged) {
        let last = last_of(engine, writer);
        assert!(
            last >= acknowledged,
            "writer {writer}: {acknowledged:?} was lost, {last:?} is there"
        );
        let Some(last) = last else { continue };
        let mut numbers = BTreeSet::new();
        let mut count = 0;
        let (from, to) = (key(writer, 0, 0), key(writer + 1, 0, 0));
        let visit = &mut |key: &[u8], found: Bytes| {
            let number = u64::from_be_bytes(key[8..16].try_into().unwrap());
            assert!(found == value(writer, number), "value of {writer} {number}");
            numbers.insert(number);
            count += 1;
            ControlFlow::Continue(())
        };
        engine.scan(Tree::Log, Bound::Included(&from), Bound::Excluded(&to), visit).unwrap();
        assert_eq!(count, numbers.len() as u64 * PARTS, "a batch of writer {writer} is not whole");
        let purge = last - last % 32;
        let first = purge.saturating_sub(KEPT);
        let expected: BTreeSet<u64> = (first..=last).collect();
        let missing: Vec<_> = expected.difference(&numbers).collect();
        let left_over: Vec<_> = numbers.difference(&expected).collect();
        assert!(
            missing.is_empty() && left_over.is_empty(),
            "writer {writer}, {first} to {last}: {missing:?} missing, {left_over:?} left over"
        );
    }
}

#[test]
fn whatever_was_acknowledged_survives_being_killed_at_any_point() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for kill in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(kill | 1);
        // Some are killed while they open, most while sled is being written to.
        let after = if kill % 6 == 0 { 1 } else { random >> 54 };
        let heard = run_and_kill(directory.path(), after);
        assert_eq!(heard.errors, [""; 0]);
        let engine = DiskEngine::open(directory.path()).unwrap();
        check(&engine, &heard);
        assert!(engine.blobs().unwrap().is_empty());
    }
}

/// Runs the writer with a small file system of its own that somebody else fills, and makes room on
/// again, and kills it in the end. Needs the right to make a mount namespace; `None` where that is
/// not given. What it says meanwhile is kept apart: before, while it is full, and after.
fn fill_a_small_disk(directory: &Path) -> Option<[Heard; 3]> {
    let script = format!(
        "mount -t tmpfs -o size=140m tmpfs {0} || exit 1; \"$@\" & writer=$!; sleep 2; \
         head -c 200m /dev/zero > {0}/filler 2>/dev/null; echo; echo full; sleep 4; echo; \
         echo room; rm {0}/filler; sleep 4; kill -9 $writer; mkdir -p {0}.kept; \
         cp -a {0}/. {0}.kept/",
        directory.display()
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .output()
        .ok()?;
    let mut heard = <[Heard; 3]>::default();
    let mut part = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line {
            "full" => part = 1,
            "room" => part = 2,
            line => heard[part].line(line),
        }
    }
    (heard[0].count > 0).then_some(heard)
}

#[test]
fn a_full_disk_holds_writers_up_and_lets_them_go_on_without_loss_when_there_is_room() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    std::fs::create_dir(&directory).unwrap();
    let Some([mut heard, full, after]) = fill_a_small_disk(&directory) else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    for part in [&heard, &full, &after] {
        assert_eq!(part.errors, [""; 0]);
    }
    assert!(after.count > 0, "nothing was written after there was room again");
    for (last, later) in heard.acknowledged.iter_mut().zip(after.acknowledged) {
        *last = later.max(*last);
    }
    let engine = DiskEngine::open(&parent.path().join("data.kept")).unwrap();
    check(&engine, &heard);
    engine.write(batch(0, last_of(&engine, 0).unwrap() + 1), Durability::Now).unwrap();
    match DiskEngine::open(&parent.path().join("data.kept")) {
        Err(EngineError::InUse { .. }) => {}
        other => panic!("{:?}", other.err()),
    }
}
