//! R7: a lease lives for as long as was promised with its last renewal.

use crate::history::History;

pub(super) fn judge(history: &History) {
    let gone = history.gone.lock();
    for held in &*history.held.lock() {
        if let Some(at) = gone.get(&held.key) {
            let until = held.promised_until;
            assert!(*at >= until, "R7: {} was gone at {at} µs, promised until {until}", held.key);
        }
    }
}
