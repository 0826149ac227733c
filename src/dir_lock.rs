//! One process per data directory: a lock that the kernel lets go of when its holder ends, however.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// Held as long as this lives.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes that of the verb `verb`, or says who has it.
    pub fn acquire(data_dir: &Path, verb: &str) -> anyhow::Result<Self> {
        let path = data_dir.join(format!("{verb}.lock"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            file.read_to_string(&mut holder).unwrap_or_default();
            bail!(
                "{} is in use by another `kontiki {verb}` (process {}); stop it, or name another \
                 --data-dir",
                data_dir.display(),
                holder.trim()
            );
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).with_context(|| format!("write {}", path.display()))?;
        Ok(Self { _file: file })
    }
}
