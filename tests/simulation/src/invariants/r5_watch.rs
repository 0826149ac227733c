//! R5: a watch tells of every change once, in order, transactions whole; its bookmarks are never
//! ahead; and it goes on at another member where it broke off.

use crate::history::{History, Watched};

pub(super) fn judge(history: &History) {
    let watched = history.watched.lock();
    let ends = watched.values().filter_map(|one| one.told.last()).map(|told| told.revision);
    let end = ends.max().unwrap_or(1);
    for (number, watched) in &*watched {
        let mut last = 1;
        for told in &watched.told {
            let is_next = told.revision == last || told.revision == last + 1;
            assert!(is_next, "R5: watcher {number} was told of {} after {last}", told.revision);
            last = told.revision;
        }
        assert_eq!(last, end, "R5: watcher {number} was not told of the end");
        judge_progress(*number, watched);
    }
}

fn judge_progress(number: u64, watched: &Watched) {
    for (count, revision) in &watched.progress {
        let later = watched.told.get(*count).map(|told| told.revision);
        let is_ahead = later.is_some_and(|later| later <= *revision);
        assert!(
            !is_ahead,
            "R5: watcher {number} was told of {later:?} after a bookmark {revision}"
        );
    }
}
