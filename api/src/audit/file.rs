//! Events in a file, one JSON text a line. A file that is full is put aside under the time; old ones
//! go.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

/// Where events are written, and what is kept of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLog {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// How long files that were put aside are kept, in days; 0 keeps them.
    pub max_age_days: u32,
    /// How many of them are kept; 0 keeps all.
    pub max_backups: usize,
    /// When a file is put aside, in megabytes; 0 is 100.
    pub max_megabytes: u64,
}

const MEGABYTE: u64 = 1 << 20;
const MEGABYTES_DEFAULT: u64 = 100;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a file that could not be put aside is written on before it is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The open file.
pub(super) struct Rotated {
    log: AuditLog,
    bytes_max: u64,
    open: Option<(File, u64)>,
    /// When putting the file aside failed last.
    failed: Option<Instant>,
}

impl Rotated {
    pub(super) fn new(log: AuditLog) -> Self {
        let megabytes = if log.max_megabytes == 0 { MEGABYTES_DEFAULT } else { log.max_megabytes };
        Self { log, bytes_max: megabytes * MEGABYTE, open: None, failed: None }
    }

    /// Writes a line. Where the file cannot be put aside, it is written on: better too long than
    /// without a line.
    pub(super) fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.log.path.as_os_str() == "-" {
            return std::io::stdout().lock().write_all(line);
        }
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let is_full = size > 0 && size.saturating_add(length) > self.bytes_max;
        if is_full && self.failed.is_none_or(|since| since.elapsed() > RETRY) {
            self.failed = None;
            match self.rotate() {
                Ok(new) => (file, size) = new,
                Err(error) => {
                    tracing::error!(%error, "the audit log cannot be put aside");
                    self.failed = Some(Instant::now());
                }
            }
        }
        file.write_all(line)?;
        self.open = Some((file, size + length));
        Ok(())
    }

    fn open(&self) -> std::io::Result<(File, u64)> {
        if let Some(folder) = self.log.path.parent().filter(|path| !path.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log.path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// A new file in the place of the full one.
    fn rotate(&self) -> std::io::Result<(File, u64)> {
        self.put_aside(Timestamp::now())?;
        let new = self.open()?;
        if let Err(error) = self.clear() {
            tracing::error!(%error, "an old audit log cannot be removed");
        }
        Ok(new)
    }

    fn put_aside(&self, now: Timestamp) -> std::io::Result<()> {
        let (folder, stem, extension) = parts(&self.log.path);
        let millis = now.subsec_millisecond();
        let time = format!("{}.{millis:03}", now.strftime("%Y-%m-%dT%H-%M-%S"));
        match std::fs::rename(&self.log.path, folder.join(format!("{stem}-{time}{extension}"))) {
            // Somebody else has taken it away.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Removes what is outdated; what cannot be keeps nothing else.
    fn clear(&self) -> std::io::Result<()> {
        let outdated = self.outdated(SystemTime::now())?;
        let removed: Vec<_> = outdated.iter().map(std::fs::remove_file).collect();
        removed.into_iter().collect()
    }

    /// The files put aside that are too many or too old.
    fn outdated(&self, now: SystemTime) -> std::io::Result<Vec<PathBuf>> {
        let (folder, stem, extension) = parts(&self.log.path);
        let mut aside = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name.strip_prefix(&format!("{stem}-"));
            if time.and_then(|time| time.strip_suffix(&extension)).is_some_and(is_time) {
                aside.push((name, entry.path(), entry.metadata()?.modified()?));
            }
        }
        // The newest first: their names are their times.
        aside.sort_by(|one, other| other.0.cmp(&one.0));
        let kept = if self.log.max_backups == 0 { usize::MAX } else { self.log.max_backups };
        let age_max = DAY * self.log.max_age_days;
        let is_old = |since: SystemTime| {
            !age_max.is_zero() && now.duration_since(since).is_ok_and(|age| age > age_max)
        };
        let all = aside.into_iter().enumerate();
        let outdated = all.filter(|(place, (_, _, since))| *place >= kept || is_old(*since));
        Ok(outdated.map(|(_, (_, path, _))| path).collect())
    }
}

fn is_time(text: &str) -> bool {
    text.len() == "2026-01-01T00-00-00.000".len()
        && text.chars().all(|letter| letter.is_ascii_digit() || "-T.".contains(letter))
}

/// The folder of a file, and its name in two parts: `audit`, `.log`.
fn parts(path: &Path) -> (PathBuf, String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    let extension = match text(path.extension()) {
        empty if empty.is_empty() => empty,
        extension => format!(".{extension}"),
    };
    (folder.unwrap_or(Path::new(".")).to_owned(), text(path.file_stem()), extension)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn log(folder: &Path) -> AuditLog {
        let path = folder.join("new").join("audit.log");
        AuditLog { path, max_age_days: 0, max_backups: 2, max_megabytes: 1 }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder.join("new")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut rotated = Rotated::new(log(folder.path()));
        let line = vec![b'x'; 600 << 10];
        for _ in 0..4 {
            rotated.write(&line).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let names = names(folder.path());
        assert_eq!(names.len(), 3, "the file and two put aside: {names:?}");
        let path = folder.path().join("new").join("audit.log");
        let file = std::fs::metadata(path).unwrap();
        assert_eq!((file.len(), file.permissions().mode() & 0o777), (600 << 10, 0o600));
    }

    #[test]
    fn no_line_is_lost_where_a_full_file_cannot_be_put_aside_or_an_old_one_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut rotated = Rotated::new(log(folder.path()));
        let line = vec![b'x'; 600 << 10];
        rotated.write(&line).unwrap();
        // Nobody removes a folder by mistake.
        for year in [2020, 2021, 2022] {
            let aside = format!("audit-{year}-01-01T00-00-00.000.log");
            std::fs::create_dir(folder.path().join("new").join(aside)).unwrap();
        }
        rotated.write(&line).unwrap();
        let path = folder.path().join("new").join("audit.log");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 600 << 10);
        // A file where the folder is: nothing can be put aside in it.
        let moved = folder.path().join("moved");
        std::fs::rename(folder.path().join("new"), &moved).unwrap();
        std::fs::write(folder.path().join("new"), "").unwrap();
        rotated.write(&line).unwrap();
        assert_eq!(std::fs::metadata(moved.join("audit.log")).unwrap().len(), 1200 << 10);
    }

    #[test]
    fn what_is_there_is_written_on_and_old_files_go_by_their_age() {
        let folder = tempfile::tempdir().unwrap();
        let of = |max_age_days| AuditLog { max_age_days, max_backups: 0, ..log(folder.path()) };
        Rotated::new(of(1)).write(b"one\n").unwrap();
        Rotated::new(of(1)).write(b"two\n").unwrap();
        let path = folder.path().join("new").join("audit.log");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\n");
        let aside = folder.path().join("new").join("audit-2026-01-01T00-00-00.000.log");
        std::fs::write(&aside, "").unwrap();
        std::fs::write(folder.path().join("new").join("audit-notes.log"), "").unwrap();
        let later = SystemTime::now() + DAY * 2;
        assert_eq!(Rotated::new(of(1)).outdated(later).unwrap(), [aside]);
        assert!(Rotated::new(of(3)).outdated(later).unwrap().is_empty());
    }
}
