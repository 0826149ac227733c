//! R11: silence is bounded: every request is answered, be it that its outcome is not known, unless
//! the machine that was asked has crashed or stands still.

use std::time::Duration;

use crate::history::History;
use crate::world::ANSWER;

pub(super) fn judge(history: &History) {
    let longest = *history.silence.lock();
    assert!(longest <= ANSWER + Duration::from_secs(1), "R11: silent for {longest:?}");
}
