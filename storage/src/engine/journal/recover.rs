//! Opening a journal: which records count, what is cut off, and what is refused.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::segment::{self, Header, SEGMENT_HEADER_BYTES, Segment};
use super::{Journal, SEGMENT_BYTES, Sequence, record};
use crate::engine::{EngineError, io_error};

/// Where records may begin.
const RECORD_STEP: usize = 8;

/// A segment that was read.
struct Read {
    path: PathBuf,
    header: Header,
    /// The sequence after its last record.
    next: Sequence,
    /// Where that one would stand.
    end: usize,
    /// Where a record that follows later begins: then the one due at `end` is damaged.
    later: Option<usize>,
}

pub(super) fn open(
    directory: &Path,
    checkpoint: Option<Sequence>,
    replay: &mut dyn FnMut(&[u8]) -> Result<(), EngineError>,
) -> Result<Journal, EngineError> {
    std::fs::create_dir_all(directory).map_err(io_error("create", directory))?;
    let directory_file = File::open(directory).map_err(io_error("open", directory))?;
    let (segments, spares) = list(directory)?;
    let after = checkpoint.unwrap_or(0);
    let mut found: VecDeque<Read> = VecDeque::new();
    for path in segments {
        let read = read(path, found.back(), after, replay)?;
        found.push_back(read);
    }
    let Some(last) = found.pop_back() else {
        if checkpoint.is_some() {
            return Err(damaged(directory, 0, "the journal of this store is missing"));
        }
        return create(directory, directory_file, spares);
    };
    if last.next <= after {
        return Err(damaged(&last.path, last.end, "records that were there have gone"));
    }
    if last.later.is_some() {
        return Err(damaged(&last.path, last.end, "a record before the last does not hold"));
    }
    let active = Segment::resume(last.path, last.header, last.end as u64)?;
    // What was read may so far stand in the page cache alone.
    active.sync()?;
    let mut sealed = VecDeque::new();
    for read in found {
        sealed.push_back((Segment::resume(read.path, read.header, 0)?, read.next - 1));
    }
    let mut journal = Journal {
        directory: directory.to_owned(),
        directory_file,
        active,
        sealed,
        spares: Vec::new(),
        spare_number: 0,
        next: last.next,
    };
    adopt(&mut journal, spares)?;
    journal.release(after)?;
    Ok(journal)
}

fn create(
    directory: &Path,
    directory_file: File,
    spares: Vec<PathBuf>,
) -> Result<Journal, EngineError> {
    for spare in spares {
        std::fs::remove_file(&spare).map_err(io_error("remove", &spare))?;
    }
    let spare = directory.join("first.free");
    segment::allocate(&spare, SEGMENT_BYTES)?;
    let active = Segment::begin(directory, &directory_file, &spare, 1, 1)?;
    Ok(Journal {
        directory: directory.to_owned(),
        directory_file,
        active,
        sealed: VecDeque::new(),
        spares: Vec::new(),
        spare_number: 0,
        next: 1,
    })
}

/// The segments in order, and the spare files.
fn list(directory: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), EngineError> {
    let (mut segments, mut spares) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).map_err(io_error("list", directory))? {
        let path = entry.map_err(io_error("list", directory))?.path();
        if let Some(number) = segment::number_of(&path) {
            segments.push((number, path));
        } else if path.extension().is_some_and(|extension| extension == "free") {
            spares.push(path);
        }
    }
    segments.sort_unstable();
    Ok((segments.into_iter().map(|(_, path)| path).collect(), spares))
}

/// Takes over spare files under names of this run; one that is not whole is removed.
fn adopt(journal: &mut Journal, mut spares: Vec<PathBuf>) -> Result<(), EngineError> {
    spares.sort_unstable();
    let number = |path: &PathBuf| {
        let name = path.file_stem()?.to_str()?.strip_prefix("spare-")?;
        name.parse::<u64>().ok()
    };
    journal.spare_number = spares.iter().filter_map(number).max().map_or(0, |most| most + 1);
    for path in spares {
        let size = std::fs::metadata(&path).map_err(io_error("read", &path))?.len();
        if size == SEGMENT_BYTES {
            journal.spares.push(path);
        } else {
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// Reads one segment, which must follow on `before`, and replays its records after `after`.
fn read(
    path: PathBuf,
    before: Option<&Read>,
    after: Sequence,
    replay: &mut dyn FnMut(&[u8]) -> Result<(), EngineError>,
) -> Result<Read, EngineError> {
    let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
    let header = Header::decode(&bytes, &path)?;
    if segment::number_of(&path) != Some(header.number) {
        return Err(damaged(&path, 0, "its header has the number of another segment"));
    }
    match before {
        Some(before) if before.next != header.first => {
            return Err(damaged(
                &before.path,
                before.end,
                "a record before the last does not hold",
            ));
        }
        None if header.first > after + 1 => {
            return Err(damaged(&path, 0, "a segment before it is missing"));
        }
        Some(_) | None => {}
    }
    let mut next = header.first;
    let mut end = usize::try_from(SEGMENT_HEADER_BYTES).unwrap_or(usize::MAX);
    while let Some(found) = record::find(bytes.get(end..).unwrap_or_default(), header.salt)
        && found.sequence == next
    {
        if next > after {
            replay(found.writes)?;
        }
        next += 1;
        end += found.bytes;
    }
    let later = later_record(&bytes, end, header.salt, next);
    Ok(Read { path, header, next, end, later })
}

/// Where a whole record with a sequence after `due` stands behind `end`. It can only have been
/// written once the one that was due was synced.
fn later_record(bytes: &[u8], end: usize, salt: u64, due: Sequence) -> Option<usize> {
    (end..bytes.len())
        .step_by(RECORD_STEP)
        .find(|at| record::find(&bytes[*at..], salt).is_some_and(|found| found.sequence > due))
}

pub(super) fn damaged(path: &Path, offset: usize, reason: &str) -> EngineError {
    EngineError::Damaged {
        path: path.display().to_string(),
        offset: offset.to_string(),
        reason: reason.to_owned(),
    }
}
