//! R4: reads and writes are linearizable.

use kontiki_storage::testing::linearizability;

use crate::history::History;

pub(super) fn judge(history: &History) {
    let operations = history.operations.lock();
    if let Err(failure) = linearizability::check(&operations) {
        panic!("R4: {failure}");
    }
}
