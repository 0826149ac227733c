//! What clients saw, and whether it could have been.
//!
//! Each writer has a key of its own and writes 1, 2, 3, … to it, one at a time, so that a key is a
//! register of which every read can be judged: not older than what was acknowledged before the read
//! began, not newer than what was tried before it ended.

use std::collections::BTreeMap;

use parking_lot::Mutex;

#[derive(Debug, Default)]
struct Register {
    acknowledged: u64,
    tried: u64,
    /// The newest value that any finished read has returned.
    read: u64,
}

/// All registers, and how much was done with them.
#[derive(Debug, Default)]
pub(super) struct History {
    registers: Mutex<BTreeMap<String, Register>>,
    pub(super) writes: Mutex<u64>,
    pub(super) reads: Mutex<u64>,
}

impl History {
    pub(super) fn try_write(&self, key: &str) -> u64 {
        let mut registers = self.registers.lock();
        let register = registers.entry(key.to_owned()).or_default();
        register.tried += 1;
        register.tried
    }

    pub(super) fn acknowledge(&self, key: &str, value: u64) {
        let mut registers = self.registers.lock();
        let register = registers.entry(key.to_owned()).or_default();
        assert!(value > register.acknowledged);
        register.acknowledged = value;
        *self.writes.lock() += 1;
    }

    /// The least that a read beginning now may return.
    pub(super) fn floor(&self, key: &str) -> u64 {
        let registers = self.registers.lock();
        registers.get(key).map_or(0, |register| register.acknowledged.max(register.read))
    }

    /// Judges a read that began when `floor` was asked for.
    pub(super) fn judge(&self, key: &str, floor: u64, value: u64) {
        let mut registers = self.registers.lock();
        let register = registers.entry(key.to_owned()).or_default();
        assert!(value >= floor, "R4: {key} was read as {value} when {floor} had been seen");
        assert!(value <= register.tried, "{key} was read as {value}, which nobody wrote");
        register.read = register.read.max(value);
        *self.reads.lock() += 1;
    }

    /// Judges the end: nothing acknowledged may be missing.
    pub(super) fn finish(&self, mut value_of: impl FnMut(&str) -> u64) {
        for (key, register) in &*self.registers.lock() {
            let value = value_of(key);
            assert!(
                value >= register.acknowledged && value <= register.tried,
                "R1: {key} ends as {value}; acknowledged was {}, tried {}",
                register.acknowledged,
                register.tried
            );
        }
    }
}
