//! What a process did to its files, in the order in which it was done, from a trace of `strace`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is traced: whatever changes files or makes changes last, and what was said.
const CALLS: &str = "openat,close,write,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,\
                     renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,fcntl";

/// The longest string that is traced whole.
const STRING_MAX: &str = "33554432";

/// One call. Of one that another thread's call came between, beginning and end are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A call has begun that makes a file's contents last, or a folder's names.
    SyncBegins {
        thread: u32,
        descriptor: i32,
    },
    /// It has ended.
    SyncEnds {
        thread: u32,
    },
    Open {
        path: PathBuf,
        descriptor: i32,
        is_new: bool,
        is_emptied: bool,
    },
    Duplicate {
        from: i32,
        to: i32,
    },
    Close {
        descriptor: i32,
    },
    /// At an offset, or where the last one ended.
    Write {
        descriptor: i32,
        offset: Option<u64>,
        bytes: Vec<u8>,
    },
    Resize {
        descriptor: i32,
        bytes: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    MakeFolder {
        path: PathBuf,
    },
}

/// Runs a command under `strace`; `None` where that cannot be done.
pub(super) fn record(mut command: Command, file: &Path) -> Option<Vec<Event>> {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "--seccomp-bpf", "-s", STRING_MAX, "-e"]);
    traced.arg(format!("trace={CALLS}")).arg("-o").arg(file);
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        traced.env(name, value?);
    }
    command = traced;
    let ended = command.output().ok()?;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Some(parse(&std::fs::read(file).unwrap()))
}

/// Reads a trace.
fn parse(trace: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut begun: HashMap<u32, Vec<u8>> = HashMap::new();
    for line in trace.split(|byte| *byte == b'\n') {
        let Some(blank) = line.iter().position(|byte| *byte == b' ') else { continue };
        let Ok(thread) = String::from_utf8_lossy(&line[..blank]).parse() else { continue };
        let line = line[blank..].trim_ascii();
        if let Some(head) = line.strip_suffix(b"<unfinished ...>") {
            sync_begins(thread, head, &mut events);
            begun.insert(thread, head.trim_ascii_end().to_vec());
        } else if let Some(rest) = line.strip_prefix(b"<... ") {
            let end = rest.iter().position(|byte| *byte == b'>').unwrap();
            let mut whole = begun.remove(&thread).unwrap();
            whole.extend_from_slice(&rest[end + 1..]);
            finish(thread, &whole, &mut events);
        } else {
            sync_begins(thread, line, &mut events);
            finish(thread, line, &mut events);
        }
    }
    events
}

fn is_sync(call: &[u8]) -> bool {
    call.starts_with(b"fsync(") || call.starts_with(b"fdatasync(")
}

fn sync_begins(thread: u32, call: &[u8], events: &mut Vec<Event>) {
    if is_sync(call) {
        let arguments = Arguments::of(call);
        events.push(Event::SyncBegins { thread, descriptor: arguments.number(0) });
    }
}

/// Takes in a call that has ended, unless it failed.
fn finish(thread: u32, call: &[u8], events: &mut Vec<Event>) {
    if is_sync(call) {
        events.push(Event::SyncEnds { thread });
        return;
    }
    let Some(open) = call.iter().position(|byte| *byte == b'(') else { return };
    let name = std::str::from_utf8(&call[..open]).unwrap();
    let arguments = Arguments::of(call);
    let Some(result) = arguments.result.filter(|result| *result >= 0) else { return };
    events.extend(event(name, &arguments, result));
}

fn event(name: &str, arguments: &Arguments, result: i64) -> Option<Event> {
    Some(match name {
        "openat" => Event::Open {
            path: arguments.path(1),
            descriptor: i32::try_from(result).unwrap(),
            is_new: arguments.word(2).contains("O_CREAT"),
            is_emptied: arguments.word(2).contains("O_TRUNC"),
        },
        "close" => Event::Close { descriptor: arguments.number(0) },
        "fcntl" if arguments.word(1).starts_with("F_DUPFD") => {
            Event::Duplicate { from: arguments.number(0), to: i32::try_from(result).unwrap() }
        }
        "write" | "pwrite64" => {
            let mut bytes = arguments.strings[0].1.clone();
            bytes.truncate(usize::try_from(result).unwrap());
            let offset = (name == "pwrite64").then(|| arguments.number(3));
            Event::Write { descriptor: arguments.number(0), offset, bytes }
        }
        "ftruncate" => {
            Event::Resize { descriptor: arguments.number(0), bytes: arguments.number(1) }
        }
        "rename" => Event::Rename { from: arguments.path(0), to: arguments.path(1) },
        "renameat" | "renameat2" => {
            Event::Rename { from: arguments.path(1), to: arguments.path(3) }
        }
        "unlink" | "rmdir" => Event::Remove { path: arguments.path(0) },
        "unlinkat" => Event::Remove { path: arguments.path(1) },
        "mkdir" => Event::MakeFolder { path: arguments.path(0) },
        "mkdirat" => Event::MakeFolder { path: arguments.path(1) },
        _ => return None,
    })
}

/// The arguments of a call: words, and strings by their position.
struct Arguments {
    words: Vec<String>,
    strings: Vec<(usize, Vec<u8>)>,
    result: Option<i64>,
}

impl Arguments {
    fn of(call: &[u8]) -> Self {
        let mut at = call.iter().position(|byte| *byte == b'(').map_or(call.len(), |at| at + 1);
        let (mut words, mut strings) = (vec![String::new()], Vec::new());
        while at < call.len() {
            match call[at] {
                b'"' => {
                    let (string, end) = unescape(call, at + 1);
                    strings.push((words.len() - 1, string));
                    at = end;
                }
                b',' => words.push(String::new()),
                b')' => break,
                byte => words.last_mut().unwrap().push(char::from(byte)),
            }
            at += 1;
        }
        let rest = String::from_utf8_lossy(&call[at.min(call.len())..]).into_owned();
        let result = rest.split_once("= ").and_then(|(_, result)| {
            result.split_whitespace().next().and_then(|number| number.parse().ok())
        });
        Self { words, strings, result }
    }

    fn word(&self, position: usize) -> &str {
        self.words[position].trim()
    }

    fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, position: usize) -> T {
        self.word(position).parse().unwrap()
    }

    fn path(&self, position: usize) -> PathBuf {
        let (_, path) = self.strings.iter().find(|(at, _)| *at == position).unwrap();
        PathBuf::from(String::from_utf8(path.clone()).unwrap())
    }
}

/// The bytes of a string that begins at `at`, and where its closing mark is.
fn unescape(call: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    loop {
        match call[at] {
            b'"' => return (bytes, at),
            b'\\' => {
                at += 1;
                let byte = match call[at] {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 11,
                    b'f' => 12,
                    b'0'..=b'7' => {
                        let digits = call[at..].iter().take(3);
                        let digits = digits.take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                        let text = std::str::from_utf8(&call[at..at + digits]).unwrap();
                        at += digits - 1;
                        u8::from_str_radix(text, 8).unwrap()
                    }
                    other => other,
                };
                bytes.push(byte);
            }
            byte => bytes.push(byte),
        }
        at += 1;
    }
}

#[test]
fn a_trace_is_read_with_its_bytes_and_with_calls_that_others_came_between() {
    let trace = br#"10 openat(AT_FDCWD, "/d/a(1).seg", O_RDWR|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 5
10 pwrite64(5, "a\0\12\"\\,)\3771", 9, 64) = 9
11 fdatasync(5 <unfinished ...>
10 write(1, "x\n", 2) = 2
11 <... fdatasync resumed>) = 0
10 unlink("/d/none") = -1 ENOENT (No such file or directory)
10 rename("/d/b", "/d/c")  = 0
"#;
    let written = b"a\0\n\"\\,)\xff1".to_vec();
    let expected = [
        Event::Open { path: "/d/a(1).seg".into(), descriptor: 5, is_new: true, is_emptied: true },
        Event::Write { descriptor: 5, offset: Some(64), bytes: written },
        Event::SyncBegins { thread: 11, descriptor: 5 },
        Event::Write { descriptor: 1, offset: None, bytes: b"x\n".to_vec() },
        Event::SyncEnds { thread: 11 },
        Event::Rename { from: "/d/b".into(), to: "/d/c".into() },
    ];
    assert_eq!(parse(trace), expected);
}
