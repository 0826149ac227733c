use rustix::fs::{FlockOperation, flock};

use super::*;
use crate::engine::journal::SEGMENT_BYTES;
use crate::engine::page::{self, Stored};
use crate::engine::pages::record_key;
use crate::engine::sled::RecordWrite;

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(Tree::Meta, key.to_owned(), value.to_owned());
    batch
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    match DiskEngine::open(directory.path()).err() {
        Some(EngineError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(engine);
    DiskEngine::open(directory.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_refused_with_its_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = DiskEngine::open(&file.path().join("below")).err().unwrap().to_string();
    assert!(error.contains(file.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_failed_write_stops_the_engine_and_a_reopen_finds_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    engine.write(put("acknowledged", "1"), Durability::Now).unwrap();
    // The journal loses its file: its next segment cannot be begun.
    let journal = directory.path().join("journal");
    let aside = directory.path().join("aside");
    std::fs::rename(&journal, &aside).unwrap();
    let large = usize::try_from(SEGMENT_BYTES).unwrap() / 2;
    let mut batch = Batch::default();
    batch.put(Tree::Log, "too much for what is left", vec![0; large]);
    let failure = loop {
        if let Err(error) = engine.write(batch.clone(), Durability::Now) {
            break error;
        }
    };
    assert!(matches!(failure, EngineError::Io { .. } | EngineError::Stopped { .. }), "{failure}");
    let refused = engine.write(put("later", "1"), Durability::Now).unwrap_err();
    assert!(matches!(refused, EngineError::Stopped { .. }), "{refused}");
    assert!(matches!(engine.sync(), Err(EngineError::Stopped { .. })));
    drop(engine);
    std::fs::rename(&aside, &journal).unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    assert_eq!(engine.get(Tree::Meta, b"acknowledged").unwrap(), Some("1".into()));
    assert_eq!(engine.get(Tree::Meta, b"later").unwrap(), None);
}

#[test]
fn callers_that_wait_at_the_same_time_share_a_sync() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    let before = engine.shared.journal.lock().last();
    {
        // While the journal is held, one leads and the others gather behind it.
        let journal = engine.shared.journal.lock();
        std::thread::scope(|scope| {
            for writer in 0..16 {
                let engine = &engine;
                scope.spawn(move || {
                    engine.write(put(&writer.to_string(), "1"), Durability::Now).unwrap();
                });
            }
            while engine.shared.queue.lock().written < 16 {
                std::thread::yield_now();
            }
            drop(journal);
        });
    }
    let records = engine.shared.journal.lock().last() - before;
    assert!(records <= 2, "{records} records for what two could hold");
}

#[test]
fn what_is_purged_before_a_step_never_reaches_sled() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    let mut batch = Batch::default();
    for index in 0..100_u64 {
        batch.put(Tree::Log, index.to_be_bytes().to_vec(), "entry");
    }
    batch.delete_range(Tree::Log, 0_u64.to_be_bytes().to_vec(), 100_u64.to_be_bytes().to_vec());
    engine.write(batch, Durability::Now).unwrap();
    engine.settle().unwrap();
    assert!(engine.shared.pages.page_after(Tree::Log, b"").unwrap().is_none());
}

#[test]
fn the_fragments_of_a_replaced_large_value_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    for round in 0..3_u8 {
        let mut batch = Batch::default();
        batch.put(Tree::Versions, "large", vec![round; 300_000]);
        engine.write(batch, Durability::Now).unwrap();
        engine.settle().unwrap();
    }
    let fragments = |engine: &DiskEngine| {
        let (mut count, mut key) = (0, vec![0xfe]);
        while let Some((next, _)) = engine.shared.pages.records.next(&key).unwrap()
            && next[0] == 0xfe
        {
            count += 1;
            key = next.to_vec();
        }
        count
    };
    assert_eq!(fragments(&engine), 300_000_usize.div_ceil(14 << 10));
    let mut batch = Batch::default();
    batch.delete_range(Tree::Versions, "a", "z");
    engine.write(batch, Durability::Now).unwrap();
    engine.settle().unwrap();
    assert_eq!(fragments(&engine), 0);
    assert_eq!(engine.blobs().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn a_large_value_that_a_step_replaces_is_not_taken_for_damaged_by_who_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    let replace = |round: u8| {
        let mut batch = Batch::default();
        batch.put(Tree::Versions, "large", vec![round; 3 << 20]);
        engine.write(batch, Durability::Now).unwrap();
        engine.settle().unwrap();
    };
    replace(0);
    let (engine, done) = (&engine, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let read = move |read_one: &dyn Fn() -> Result<Option<Bytes>, EngineError>| {
            while !done.load(Ordering::SeqCst) {
                let value = read_one().unwrap().unwrap();
                assert!(value.len() == 3 << 20 && value.iter().all(|byte| *byte == value[0]));
            }
        };
        let readers = [
            scope.spawn(move || read(&|| engine.get(Tree::Versions, b"large"))),
            scope.spawn(move || read(&|| Ok(engine.last(Tree::Versions)?.map(|(_, value)| value)))),
            scope.spawn(move || read(&|| scan_first(engine))),
        ];
        for round in 1..20 {
            if readers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                break;
            }
            replace(round);
        }
        done.store(true, Ordering::SeqCst);
    });
}

fn scan_first(engine: &DiskEngine) -> Result<Option<Bytes>, EngineError> {
    let mut first = None;
    engine.scan(Tree::Versions, Bound::Unbounded, Bound::Unbounded, &mut |_, value| {
        first = Some(value);
        std::ops::ControlFlow::Break(())
    })?;
    Ok(first)
}

#[test]
fn two_ranges_cleared_in_one_step_may_share_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    let mut batch = Batch::default();
    for key in ["a", "b", "c", "d", "e"] {
        batch.put(Tree::Log, key, "1");
    }
    engine.write(batch, Durability::Now).unwrap();
    engine.settle().unwrap();
    // As a log does that is purged and truncated.
    let mut batch = Batch::default();
    batch.delete_range(Tree::Log, "a", "c");
    batch.delete_range(Tree::Log, "d", "z");
    engine.write(batch, Durability::Now).unwrap();
    engine.settle().unwrap();
    let left = ["a", "b", "c", "d", "e"]
        .map(|key| engine.get(Tree::Log, key.as_bytes()).unwrap().is_some());
    assert_eq!(left, [false, false, true, false, false]);
}

#[test]
fn what_a_crash_left_of_a_split_does_not_come_back_when_the_later_page_goes() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    let page = |first: u8, last: u8| {
        let entry = |key: u8| (Bytes::from(vec![key]), Stored::Inline("old".into()));
        page::encode(&(first..=last).map(entry).collect::<Vec<_>>())
    };
    // The later page was written, the earlier one not yet cut.
    let torn = [
        RecordWrite::Put(record_key(Tree::Log, b"a"), page(b'a', b'f')),
        RecordWrite::Put(record_key(Tree::Log, b"d"), page(b'd', b'f')),
    ];
    engine.shared.pages.records.apply(&torn).unwrap();
    let mut batch = Batch::default();
    batch.delete_range(Tree::Log, "d", "z");
    engine.write(batch, Durability::Now).unwrap();
    engine.settle().unwrap();
    assert_eq!(engine.get(Tree::Log, b"c").unwrap(), Some("old".into()));
    for gone in [b"d", b"e", b"f"] {
        assert_eq!(engine.get(Tree::Log, gone).unwrap(), None);
    }
    assert_eq!(engine.last(Tree::Log).unwrap().unwrap().0, "c");
}

#[test]
fn an_engine_opens_again_while_the_threads_of_the_one_before_still_hold_its_file() {
    let directory = tempfile::tempdir().unwrap();
    drop(DiskEngine::open(directory.path()).unwrap());
    let file = std::fs::File::open(directory.path().join("sled/db")).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| DiskEngine::open(directory.path()).map(|_| ()));
        // What would give up gives up in this time.
        let deadline = std::time::Instant::now() + Duration::from_millis(200);
        while !opening.is_finished() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        drop(file);
        opening.join().unwrap().unwrap();
    });
}

#[test]
fn the_journal_does_not_grow_while_sled_keeps_up() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    for index in 0..60_u64 {
        let mut batch = Batch::default();
        batch.put(Tree::Log, "the same key", vec![u8::try_from(index).unwrap(); 1 << 20]);
        engine.write(batch, Durability::Now).unwrap();
        if index % 6 == 5 {
            engine.settle().unwrap();
        }
    }
    let files = std::fs::read_dir(directory.path().join("journal")).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 7 * SEGMENT_BYTES, "{bytes} bytes of journal for one key");
}

fn log_entries(indices: std::ops::Range<u64>, bytes: usize) -> Batch {
    let mut batch = Batch::default();
    for index in indices {
        batch.put(Tree::Log, index.to_be_bytes().to_vec(), vec![1; bytes]);
    }
    batch
}

fn log_in_sled(engine: &DiskEngine) -> bool {
    engine.shared.pages.page_after(Tree::Log, b"").unwrap().is_some()
}

/// What a kill at this moment would leave.
fn killed(engine: &DiskEngine) -> (tempfile::TempDir, DiskEngine) {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["journal", "sled"] {
        std::fs::create_dir(copy.path().join(folder)).unwrap();
        for file in std::fs::read_dir(engine.directory.join(folder)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                let to = copy.path().join(folder).join(file.file_name());
                std::fs::copy(file.path(), to).unwrap();
            }
        }
    }
    let engine = DiskEngine::open(copy.path()).unwrap();
    (copy, engine)
}

#[test]
fn the_log_stays_out_of_sled_and_outlives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    let key = |index: u64| index.to_be_bytes();
    for round in 0..4 {
        engine.write(log_entries(round * 10..round * 10 + 10, 100), Durability::Now).unwrap();
        engine.write(put("round", &round.to_string()), Durability::Now).unwrap();
        engine.settle().unwrap();
    }
    assert!(!log_in_sled(&engine));
    let (_copy, reopened) = killed(&engine);
    for index in [0, 9, 10, 39] {
        assert!(reopened.get(Tree::Log, &key(index)).unwrap().is_some(), "{index}");
    }
    assert_eq!(reopened.get(Tree::Meta, b"round").unwrap(), Some("3".into()));

    let mut purge = Batch::default();
    purge.delete_range(Tree::Log, key(0).to_vec(), key(25).to_vec());
    engine.write(purge, Durability::Later).unwrap();
    let needed = engine.shared.pages.checkpoint().unwrap().unwrap();
    engine.settle().unwrap();
    assert!(engine.shared.pages.checkpoint().unwrap().unwrap() > needed, "it is needed no more");
    let (_copy, reopened) = killed(&engine);
    for (index, is_there) in [(0, false), (24, false), (25, true), (39, true)] {
        assert_eq!(reopened.get(Tree::Log, &key(index)).unwrap().is_some(), is_there, "{index}");
    }
    assert!(!log_in_sled(&engine) && !log_in_sled(&reopened));
}

#[test]
fn a_log_that_takes_too_much_of_the_journal_goes_to_sled() {
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open(directory.path()).unwrap();
    let key = |index: u64| index.to_be_bytes();
    for index in 0..100 {
        engine.write(log_entries(index..index + 1, 1 << 20), Durability::Now).unwrap();
        if index % 4 == 3 {
            engine.settle().unwrap();
        }
    }
    assert!(log_in_sled(&engine));
    let files = std::fs::read_dir(directory.path().join("journal")).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= (64 << 20) + 7 * SEGMENT_BYTES, "{bytes} bytes of journal");
    let (_copy, reopened) = killed(&engine);
    for index in 0..100 {
        let entry = reopened.get(Tree::Log, &key(index)).unwrap();
        assert_eq!(entry.map(|entry| entry.len()), Some(1 << 20), "{index}");
    }
    assert_eq!(
        reopened.last(Tree::Log).unwrap().map(|(key, _)| key),
        Some(key(99).to_vec().into())
    );
}

/// A disk that is full when it is told so.
#[derive(Clone, Default)]
struct Fillable(Arc<AtomicBool>);

impl Reserve for Fillable {
    fn keep(&self) -> std::io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

fn wait_for(engine: &DiskEngine, room: Room) {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while engine.room() != room {
        assert!(std::time::Instant::now() < until, "{:?} is told, not {room:?}", engine.room());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_is_told_while_it_is_full_and_the_engine_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Fillable::default();
    let reserve = disk.clone();
    let engine = DiskEngine::open_with(directory.path(), |_| Ok(Box::new(reserve))).unwrap();
    assert_eq!(engine.room(), Room::Ample);
    engine.write(put("before", "1"), Durability::Now).unwrap();
    disk.0.store(true, Ordering::SeqCst);
    wait_for(&engine, Room::Reserve);
    // What must be written all the same is: a delete, a vote.
    engine.write(put("while it is full", "1"), Durability::Now).unwrap();
    engine.settle().unwrap();
    disk.0.store(false, Ordering::SeqCst);
    wait_for(&engine, Room::Ample);
    engine.write(put("after", "1"), Durability::Now).unwrap();
}

#[test]
fn a_disk_that_fails_otherwise_stops_the_engine() {
    struct Broken;
    impl Reserve for Broken {
        fn keep(&self) -> std::io::Result<()> {
            Err(std::io::Error::other("a cable is loose"))
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let engine = DiskEngine::open_with(directory.path(), |_| Ok(Box::new(Broken))).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let refused = loop {
        match engine.write(put("key", "1"), Durability::Now) {
            Ok(()) => assert!(std::time::Instant::now() < until, "it goes on"),
            Err(error) => break error,
        }
    };
    assert!(refused.to_string().contains("a cable is loose"), "{refused}");
}

#[test]
fn only_a_full_disk_is_written_to_again_and_a_failed_sync_never() {
    let failed = |act, kind: ErrorKind| EngineError::Io {
        act,
        path: "journal".to_owned(),
        source: kind.into(),
    };
    let table = [
        ("allocate", ErrorKind::StorageFull, true),
        ("write", ErrorKind::StorageFull, true),
        ("write", ErrorKind::QuotaExceeded, true),
        ("sync", ErrorKind::StorageFull, false),
        ("sync", ErrorKind::Other, false),
        ("write", ErrorKind::Other, false),
    ];
    for (act, kind, expected) in table {
        assert_eq!(room::is_for_want_of_room(&failed(act, kind)), expected, "{act} {kind}");
    }
    let stopped = EngineError::Stopped { reason: String::new() };
    assert!(!room::is_for_want_of_room(&stopped));
}
