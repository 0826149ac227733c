//! [`Running`]: whether the machine may have lost what was written and not yet synced.
//!
//! A file stands in the directory as long as an engine is open, with the machine's boot identity.
//! Where one is found, its process died. If the machine is still the same boot, all that it wrote is
//! there, in the order it was written; after another boot, anything that was not synced may be
//! missing, which looks like damage.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::{EngineError, io_error};

const FILE: &str = "RUNNING";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file, from [`Running::begin`] to [`Running::end`].
#[derive(Debug)]
pub(super) struct Running {
    path: PathBuf,
    /// The last engine of this directory was cut off together with the machine.
    pub(super) after_power_cut: bool,
}

impl Running {
    /// Looks what the last engine left, and marks the directory as in use by this one.
    pub(super) fn begin(directory: &Path) -> Result<Self, EngineError> {
        let path = directory.join(FILE);
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let after_power_cut = match std::fs::read_to_string(&path) {
            Ok(found) => found.trim() != boot.trim(),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) if error.kind() == ErrorKind::InvalidData => true,
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        // After a power cut the mark stays until what was found is synced: who is killed before that
        // must not be taken for one that was only killed.
        let running = Self { path, after_power_cut };
        if !after_power_cut {
            running.mark(&boot)?;
        }
        Ok(running)
    }

    /// All that the last engine wrote is synced: from now on this boot counts.
    pub(super) fn settled(&self) -> Result<(), EngineError> {
        if self.after_power_cut {
            self.mark(&std::fs::read_to_string(BOOT_ID).unwrap_or_default())?;
        }
        Ok(())
    }

    fn mark(&self, boot: &str) -> Result<(), EngineError> {
        let write = || {
            let mut file = File::create(&self.path)?;
            file.write_all(boot.as_bytes())?;
            file.sync_all()
        };
        write().map_err(io_error("write", &self.path))
    }

    /// Everything is on the disk, and nobody writes any more.
    pub(super) fn end(&self) {
        // Left behind it makes the next engine only less strict, and only after another boot.
        let _ = std::fs::remove_file(&self.path);
    }
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
        begin().settled().unwrap();
        assert!(!begin().after_power_cut);
        begin().end();
        assert!(!begin().after_power_cut, "ended");
    }
}
