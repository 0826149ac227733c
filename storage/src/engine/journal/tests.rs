use std::os::unix::fs::FileExt;

use super::record::{decode, encode};
use super::*;
use crate::engine::{Batch, Tree};

/// A journal in a directory, and what opening it replays.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn open(&self, checkpoint: Option<Sequence>) -> Result<(Journal, Vec<Batch>), EngineError> {
        let mut replayed = Vec::new();
        let journal = Journal::open(self.directory.path(), checkpoint, &mut |writes| {
            replayed.push(decode(writes).unwrap());
            Ok(())
        })?;
        Ok((journal, replayed))
    }

    /// The error that opening must give.
    fn refused(&self, checkpoint: Option<Sequence>) -> String {
        self.open(checkpoint).map(|_| ()).unwrap_err().to_string()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = std::fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| segment::number_of(path).is_some())
            .collect();
        paths.sort();
        paths
    }

    fn spares(&self) -> usize {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let is_spare = |path: &Path| path.extension().is_some_and(|extension| extension == "free");
        entries.filter(|entry| is_spare(&entry.as_ref().unwrap().path())).count()
    }
}

fn batch(number: u64, bytes: usize) -> Batch {
    let mut batch = Batch::default();
    batch.put(Tree::Log, number.to_be_bytes().to_vec(), vec![7; bytes]);
    batch
}

fn append(journal: &mut Journal, batch: &Batch) -> Sequence {
    let mut record = vec![0; RECORD_HEADER_BYTES];
    encode(batch, &mut record);
    journal.append(&mut record).unwrap()
}

fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

/// Where a record of `bytes` bytes of value stands, the first being 0.
fn offset_of(position: u64, bytes: usize) -> u64 {
    let mut record = vec![0; RECORD_HEADER_BYTES];
    encode(&batch(0, bytes), &mut record);
    segment::SEGMENT_HEADER_BYTES + position * record::padded(record.len()) as u64
}

#[test]
fn everything_appended_is_replayed_in_order_after_the_checkpoint() {
    let bench = Bench::new();
    let (mut journal, replayed) = bench.open(None).unwrap();
    assert!(replayed.is_empty());
    for number in 1..=5 {
        assert_eq!(append(&mut journal, &batch(number, 100)), number);
    }
    drop(journal);
    let (journal, replayed) = bench.open(None).unwrap();
    assert_eq!(replayed, (1..=5).map(|number| batch(number, 100)).collect::<Vec<_>>());
    assert_eq!(journal.last(), 5);
    drop(journal);
    let (mut journal, replayed) = bench.open(Some(3)).unwrap();
    assert_eq!(replayed, [batch(4, 100), batch(5, 100)]);
    assert_eq!(append(&mut journal, &batch(6, 100)), 6);
}

#[test]
fn a_torn_last_record_is_cut_wherever_it_is_torn() {
    let whole = offset_of(1, 100) - offset_of(0, 100);
    for cut in (0..whole).step_by(8) {
        let bench = Bench::new();
        let (mut journal, _) = bench.open(None).unwrap();
        append(&mut journal, &batch(1, 100));
        append(&mut journal, &batch(2, 100));
        drop(journal);
        let file = File::options().write(true).open(&bench.segments()[0]).unwrap();
        let zeros = vec![0; usize::try_from(whole - cut).unwrap()];
        file.write_all_at(&zeros, offset_of(1, 100) + cut).unwrap();
        let (mut journal, replayed) = bench.open(None).unwrap();
        assert_eq!(replayed, [batch(1, 100)], "cut at {cut}");
        append(&mut journal, &batch(9, 30));
        drop(journal);
        assert_eq!(bench.open(None).unwrap().1, [batch(1, 100), batch(9, 30)]);
    }
}

#[test]
fn a_damaged_record_before_the_last_is_refused_with_its_place() {
    for position in 0..4 {
        let bench = Bench::new();
        let (mut journal, _) = bench.open(None).unwrap();
        for number in 1..=5 {
            append(&mut journal, &batch(number, 100));
        }
        drop(journal);
        let path = &bench.segments()[0];
        let offset = offset_of(position, 100);
        flip(path, offset + 60);
        let refusal = bench.refused(None);
        assert!(refusal.contains(&format!("damaged record at {offset}:")), "{refusal}");
        assert!(refusal.contains(path.to_str().unwrap()), "{refusal}");
        flip(path, offset + 60);
        assert_eq!(
            bench.open(None).unwrap().1.len(),
            5,
            "the refusal must have left all as it was"
        );
    }
}

#[test]
fn a_damaged_header_of_a_segment_is_refused() {
    let bench = Bench::new();
    drop(bench.open(None).unwrap());
    let path = &bench.segments()[0];
    for offset in 0..36 {
        flip(path, offset);
        assert!(bench.refused(None).contains("damaged record at 0"), "offset {offset}");
        flip(path, offset);
    }
    bench.open(None).unwrap();
}

#[test]
fn another_format_version_is_refused() {
    let bench = Bench::new();
    drop(bench.open(None).unwrap());
    let path = &bench.segments()[0];
    let mut header = std::fs::read(path).unwrap()[..32].to_vec();
    header[4] = 9;
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    File::options().write(true).open(path).unwrap().write_all_at(&header, 0).unwrap();
    assert!(bench.refused(None).contains("format version 9; this binary reads version 1"));
}

/// Fills about `segments` segments with records of 1 MiB.
fn fill(journal: &mut Journal, segments: u64) -> Sequence {
    let mut last = 0;
    for number in 0..segments * 7 {
        last = append(journal, &batch(number, 1 << 20));
    }
    last
}

#[test]
fn segments_before_the_checkpoint_are_used_again_and_their_old_records_never_seen() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open(None).unwrap();
    let mut last = fill(&mut journal, 3);
    assert_eq!(bench.segments().len(), 3);
    for _ in 0..3 {
        journal.release(last).unwrap();
        assert_eq!(bench.segments().len(), 1, "only the active one must be left");
        assert!(bench.spares() > 0);
        last = fill(&mut journal, 2);
        assert!(bench.spares() <= SPARES_MAX);
    }
    drop(journal);
    let (journal, replayed) = bench.open(Some(last - 14)).unwrap();
    assert_eq!((replayed.len(), journal.last()), (14, last));
    drop(journal);
    assert!(bench.open(Some(last)).unwrap().1.is_empty());
}

#[test]
fn a_missing_segment_is_refused() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open(None).unwrap();
    let last = fill(&mut journal, 3);
    drop(journal);
    let segments = bench.segments();
    let aside = bench.directory.path().join("aside");
    for (position, expected) in
        [(0, "a segment before it is missing"), (1, "does not hold"), (2, "have gone")]
    {
        std::fs::rename(&segments[position], &aside).unwrap();
        let checkpoint = (position == 2).then_some(last);
        let refusal = bench.refused(checkpoint);
        assert!(refusal.contains(expected), "{position}: {refusal}");
        std::fs::rename(&aside, &segments[position]).unwrap();
    }
    for path in &segments {
        std::fs::remove_file(path).unwrap();
    }
    assert!(bench.refused(Some(last)).contains("the journal of this store is missing"));
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open(None).unwrap();
    let large = batch(1, 20 << 20);
    append(&mut journal, &large);
    append(&mut journal, &batch(2, 10));
    drop(journal);
    let (mut journal, replayed) = bench.open(None).unwrap();
    assert!(replayed == [large, batch(2, 10)]);
    journal.release(1).unwrap();
    drop(journal);
    assert_eq!(bench.open(Some(1)).unwrap().1, [batch(2, 10)]);
}

#[test]
fn an_interrupted_allocation_does_no_harm() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open(None).unwrap();
    append(&mut journal, &batch(1, 10));
    drop(journal);
    std::fs::write(bench.directory.path().join("spare-3.free"), b"half").unwrap();
    let (mut journal, replayed) = bench.open(None).unwrap();
    assert_eq!(replayed, [batch(1, 10)]);
    fill(&mut journal, 2);
}
