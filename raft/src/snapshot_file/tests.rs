use std::sync::Arc;

use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::kv::{Op, Revision, Txn};
use kontiki_storage::store::{ApplyBatch, Store, StoreCommand};

use super::*;

/// A file of a store with some keys, one of them deleted.
fn file() -> Vec<u8> {
    let store = Store::open(Arc::new(MemoryEngine::new())).unwrap();
    let put = |key: &'static str| Op::put(key, "v".repeat(3000));
    for op in [put("a"), put("b"), Op::delete("a")] {
        let txn = StoreCommand::Txn(Txn { success: vec![op], ..Txn::default() });
        let batch = ApplyBatch { commands: vec![txn], ..ApplyBatch::default() };
        store.apply(batch).unwrap();
    }
    let mut export = Export::of(store.snapshot().unwrap()).unwrap();
    let mut file = Vec::new();
    while let Some(part) = export.next_part().unwrap() {
        file.extend_from_slice(&part);
        assert_eq!(export.remaining_bytes() + file.len() as u64, export.total_bytes);
    }
    assert_eq!(export.remaining_bytes(), 0);
    file
}

#[test]
fn a_file_says_what_it_holds() {
    let summary = verify(&file()[..]).unwrap();
    assert_eq!((summary.revision, summary.compacted), (Revision::new(4), Revision::ZERO));
    assert_eq!((summary.versions, summary.keys), (3, 1));
}

#[test]
fn clients_of_etcd_see_by_the_length_that_there_is_a_checksum() {
    assert_eq!(file().len() as u64 % BLOCK_BYTES, CHECKSUM_BYTES as u64);
}

#[test]
fn a_file_with_any_byte_changed_or_missing_is_refused() {
    let file = file();
    for at in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        let mut changed = file.clone();
        changed[at] ^= 1;
        verify(&changed[..]).unwrap_err();
        verify(&file[..at]).unwrap_err();
    }
    let longer = [&file[..], b"x"].concat();
    let error = verify(&longer[..]).unwrap_err();
    assert!(error.to_string().contains("behind its checksum"), "{error}");
}

#[test]
fn a_file_of_something_else_is_named_as_such() {
    let error = verify(&vec![0; 4096][..]).unwrap_err();
    assert!(matches!(error, SnapshotFileError::Foreign), "{error}");
}
