//! [`Running`]: whether the machine may have lost what was written and not yet synced.
//!
//! A file in the directory says which boot of the machine an engine is open under, or that the last one
//! was closed. Where it names a boot, that engine's process died. If the machine is still the same boot,
//! all that it wrote is there, in the order it was written; after another boot, anything that was not
//! synced may be missing, which looks like damage.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{EngineError, io_error};

const FILE: &str = "RUNNING";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const CLOSED: &str = "closed";

/// The length of a boot's identity. All that is written is that long, over what was there: so it needs
/// no room on a full disk.
const WIDTH: usize = 36;

/// The file, while an engine is open.
#[derive(Debug)]
pub(super) struct Running {
    path: PathBuf,
    /// An engine of this directory was cut off together with the machine, and what that left
    /// unfinished may be there still.
    pub(super) after_power_cut: bool,
}

impl Running {
    /// Looks what the last engine left, and marks the directory as in use by this one.
    pub(super) fn begin(directory: &Path) -> Result<Self, EngineError> {
        let path = directory.join(FILE);
        let boot = boot();
        let after_power_cut = match std::fs::read(&path) {
            // Where boots cannot be told apart, each may be another.
            Ok(found) => {
                let found = String::from_utf8_lossy(&found);
                found.trim() != CLOSED && (found.trim() != boot || boot.is_empty())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        // After a power cut the mark stays until what was found is synced: who is killed before that
        // must not be taken for one that was only killed.
        let running = Self { path, after_power_cut };
        if !after_power_cut {
            running.write(&boot).map_err(io_error("write", &running.path))?;
        }
        Ok(running)
    }

    /// Nothing unfinished was found, and all that is there is synced: from now on this boot counts.
    pub(super) fn settled(&mut self) -> Result<(), EngineError> {
        if self.after_power_cut {
            self.write(&boot()).map_err(io_error("write", &self.path))?;
            self.after_power_cut = false;
        }
        Ok(())
    }

    /// Everything is on the disk, and nobody writes any more.
    pub(super) fn end(&self) {
        // What the cut left unfinished is no more finished for that.
        if !self.after_power_cut {
            // What was written before makes the next engine only less strict, after another boot.
            let _ = self.write(CLOSED);
        }
    }

    fn write(&self, word: &str) -> std::io::Result<()> {
        let file: File =
            OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        file.write_all_at(format!("{word:<WIDTH$}\n").as_bytes(), 0)?;
        file.sync_all()
    }
}

fn boot() -> String {
    std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_boot_without_an_end_is_a_power_cut() {
        let directory = tempfile::tempdir().unwrap();
        let begin = || Running::begin(directory.path()).unwrap();
        assert!(!begin().after_power_cut, "a new directory");
        assert!(!begin().after_power_cut, "killed");
        std::fs::write(directory.path().join(FILE), "another boot\n").unwrap();
        assert!(begin().after_power_cut);
        assert!(begin().after_power_cut, "killed before all was synced");
        begin().end();
        assert!(begin().after_power_cut, "closed with what the cut left unfinished");
        begin().settled().unwrap();
        assert!(!begin().after_power_cut);
        begin().end();
        assert!(!begin().after_power_cut, "closed");
        begin().end();
        std::fs::write(directory.path().join(FILE), [0xff; WIDTH]).unwrap();
        assert!(begin().after_power_cut, "unreadable");
    }

    #[test]
    fn marking_takes_no_room_that_was_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let length = || std::fs::metadata(directory.path().join(FILE)).unwrap().len();
        let running = Running::begin(directory.path()).unwrap();
        let open = length();
        running.end();
        assert_eq!(length(), open);
    }
}
