//! The cells of `kubectl get`: columns, ages in human words, lists of labels and images.

use jiff::Timestamp;
use serde_json::Value;

use crate::object::Object;
use crate::registry::strategy::Column;
use crate::validation::labels::selector_text;

/// What stands in a cell that has nothing to show.
pub const NONE: &str = "<none>";

/// The column of the name.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace. It is the key of the object.",
    priority: 0,
};

/// The column of the age.
pub const AGE: Column = text("Age", "How long ago the object was created.");

/// A column of text.
pub const fn text(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

/// A column of whole numbers.
pub const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description, priority: 0 }
}

/// A column of text that is shown only with `-o wide`.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1 }
}

/// A duration as `kubectl` says it: exact while it is short, rounded as it grows.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let two = |large: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// How long ago a timestamp was; `<unknown>` where there is none.
pub fn since(timestamp: &str, now: Timestamp) -> String {
    timestamp
        .parse::<Timestamp>()
        .map_or_else(|_| "<unknown>".to_owned(), |then| human_duration(seconds_between(then, now)))
}

/// The whole seconds from `then` to `now`.
pub fn seconds_between(then: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(then).as_secs()
}

/// How long ago an object was created.
pub fn age(object: &Object, now: Timestamp) -> Value {
    since(object.str_at("/metadata/creationTimestamp"), now).into()
}

/// The text, or `<none>`.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// The number there, 0 where there is none: what Kubernetes shows of an unset count.
pub fn count(object: &Object, pointer: &str) -> Value {
    object.i64_at(pointer).unwrap_or(0).into()
}

/// The labels of a map, or `<none>`.
pub fn labels(map: Option<&Value>) -> Value {
    or_none(&map.map(selector_text).unwrap_or_default())
}

/// The names and the images of a list of containers, as two cells.
pub fn containers(list: Option<&Value>) -> [Value; 2] {
    let column = |field: &str| -> Value {
        let cells: Vec<&str> = list
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|container| container.get(field)?.as_str())
            .collect();
        cells.join(",").into()
    };
    [column("name"), column("image")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_writes_them() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (5 * MINUTE + 12, "5m12s"),
            (10 * MINUTE + 5, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR, "3h"),
            (7 * HOUR + 59 * MINUTE, "7h59m"),
            (8 * HOUR + 30 * MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (3 * DAY + 2 * HOUR, "3d2h"),
            (8 * DAY + 5 * HOUR, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (3 * 365 * DAY + 10 * DAY, "3y10d"),
            (9 * 365 * DAY + DAY, "9y"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds} s");
        }
    }
}
