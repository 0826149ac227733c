//! R3: revisions only grow: a write that begins after another was acknowledged has a later one.

use crate::history::History;

pub(super) fn judge(history: &History) {
    let mut written = history.written.lock().clone();
    written.sort_by_key(|one| one.returned);
    let mut by_call = written.clone();
    by_call.sort_by_key(|one| one.called);
    let mut ended = written.iter().peekable();
    let mut latest = 0;
    for one in &by_call {
        while let Some(earlier) = ended.next_if(|earlier| earlier.returned < one.called) {
            latest = latest.max(earlier.revision);
        }
        assert!(one.revision > latest, "R3: {one:?} follows revision {latest}");
    }
}
