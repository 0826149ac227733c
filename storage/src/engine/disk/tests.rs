use super::*;
use crate::engine::journal::SEGMENT_BYTES;

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
