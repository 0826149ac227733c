//! exec, cp, attach, port-forward and `logs -f` by an unmodified kubectl, over WebSockets and over
//! SPDY, through the API server to a real containerd.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use kontiki_tests::wait;
use serde_json::json;
use tempfile::TempDir;

use super::node::{Node, WITHIN, shell};

/// How a client may be told to use the old protocol.
const OLD: [(&str, &str); 2] =
    [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")];

fn command(node: &Node, is_old: bool, arguments: &[&str]) -> Command {
    let mut command = node.kubectl.command(arguments);
    if is_old {
        command.envs(OLD);
    }
    command
}

/// Runs kubectl with `input`, which ends.
fn run(node: &Node, is_old: bool, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(node, is_old, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl must start");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("kubectl must end");
    // A command that ends early does not read all.
    let _ = writer.join().expect("the writer must not panic");
    output
}

fn printed(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn commands_files_ports_and_logs_reach_a_container_by_every_protocol() {
    let Some(node) = Node::start() else { return };
    let serving = "echo hello > /www/index.html; httpd -p 80 -h /www;
        for i in $(seq 10000); do echo 0123456789abcdef; done > /www/part;
        for i in $(seq 60); do cat /www/part; done > /www/big; echo ready;
        while read line; do echo got $line; done; while true; do sleep 1; done";
    node.create("web", &shell(serving, &json!({ "stdin": true })));
    node.running("web");
    for is_old in [false, true] {
        commands(&node, is_old);
        files(&node, is_old);
        port(&node, is_old);
    }
    terminal(&node);
    follow(&node);
    refusals(&node);
}

fn commands(node: &Node, is_old: bool) {
    let out = run(node, is_old, &["exec", "web", "--", "echo", "a b", "c"], b"");
    assert_eq!(printed(&out), "a b c\n");
    let out = run(node, is_old, &["exec", "web", "--", "sh", "-c", "echo bad >&2; exit 7"], b"");
    assert_eq!(out.status.code(), Some(7), "the exit code is the command's");
    assert!(String::from_utf8_lossy(&out.stderr).starts_with("bad\n"));
    // Ends only if the end of the input is passed on; much data goes both ways at once.
    let much: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let out = run(node, is_old, &["exec", "-i", "web", "--", "cat"], &much);
    assert!(out.status.success() && out.stdout == much, "{} bytes", out.stdout.len());
}

fn files(node: &Node, is_old: bool) {
    let folder = TempDir::new().expect("a temporary folder must be had");
    let (from, back) = (folder.path().join("from"), folder.path().join("back"));
    std::fs::write(&from, "content").expect("it must be writable");
    let name = |path: &std::path::Path| path.to_str().expect("a plain name").to_owned();
    printed(&run(node, is_old, &["cp", &name(&from), "web:/tmp/file"], b""));
    printed(&run(node, is_old, &["cp", "web:/tmp/file", &name(&back)], b""));
    assert_eq!(std::fs::read_to_string(&back).expect("it must be there"), "content");
}

fn port(node: &Node, is_old: bool) {
    let mut child = command(node, is_old, &["port-forward", "pod/web", ":80"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl must start");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    // Kept open: kubectl writes a line for each connection.
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut line).expect("it must say its port");
    let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line}")).to_owned();
    // Each connection is a pair of streams of its own, at the same time as the others.
    let connections: Vec<_> = ["index.html", "big", "index.html", "big"]
        .map(|file| {
            let address = address.clone();
            (file, std::thread::spawn(move || fetch(&address, file)))
        })
        .into();
    for (file, connection) in connections {
        let body = connection.join().expect("it must be answered");
        let wanted = if file == "big" { 17 * 600_000 } else { "hello\n".len() };
        assert_eq!(body.len(), wanted, "{file}");
    }
    child.kill().expect("it must still run");
    child.wait().expect("it must end");
}

/// The body of a file, over a connection of its own.
fn fetch(address: &str, file: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it must listen");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a good time");
    let request = format!("GET /{file} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it must take the request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it must answer");
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("it must have a head");
    answer.split_off(head + 4)
}

/// A terminal has the size of the client's, and its shell's exit code is kubectl's.
fn terminal(node: &Node) {
    let kubectl = node.kubectl.command(&["exec", "-it", "web", "--", "sh"]);
    let words: Vec<_> = std::iter::once(kubectl.get_program())
        .chain(kubectl.get_args())
        .map(|word| word.to_str().expect("plain words"))
        .collect();
    let typed = format!("stty rows 33 cols 99; exec {}", words.join(" "));
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &typed, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script must start");
    let mut stdin = script.stdin.take().expect("it is piped");
    let mut stdout = script.stdout.take().expect("it is piped");
    let mut shown = String::new();
    let mut wait_for = |text: &str| {
        let mut block = [0; 1024];
        while !shown.contains(text) {
            let read = stdout.read(&mut block).expect("it must be readable");
            assert!(read > 0, "{shown}");
            shown.push_str(&String::from_utf8_lossy(&block[..read]));
        }
    };
    wait_for("/ #");
    stdin.write_all(b"test -t 0 && stty size\r").expect("it must take it");
    wait_for("33 99");
    stdin.write_all(b"exit 5\r").expect("it must take it");
    let status = script.wait().expect("it must end");
    assert_eq!(status.code(), Some(5));
}

/// `attach` feeds the process, `logs -f` shows what it makes of it.
fn follow(node: &Node) {
    let mut logs = node
        .kubectl
        .command(&["logs", "-f", "web"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl must start");
    let mut lines = BufReader::new(logs.stdout.take().expect("it is piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    let mut attached = node
        .kubectl
        .command(&["attach", "-i", "web"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl must start");
    let mut stdin = attached.stdin.take().expect("it is piped");
    stdin.write_all(b"one\n").expect("it must take it");
    assert_eq!(lines.next().expect("a line").expect("text"), "got one");
    for child in [&mut logs, &mut attached] {
        child.kill().expect("it must still run");
        child.wait().expect("it must end");
    }
}

fn refusals(node: &Node) {
    let refused = |arguments: &[&str]| node.kubectl.refused(arguments);
    let none = refused(&["exec", "web", "--", "/no/such/program"]);
    assert!(none.contains("no such file or directory"), "{none}");
    assert!(refused(&["exec", "nobody", "--", "true"]).contains("\"nobody\" not found"));
    let container = refused(&["exec", "web", "-c", "other", "--", "true"]);
    assert!(container.contains("container other is not valid for pod web"), "{container}");
    node.create("over", &shell("exit 0", &json!({})));
    node.ended("over");
    wait::until("the phase", WITHIN, || {
        let over = node.kubectl.attempt(&["exec", "over", "--", "true"]);
        match over {
            Err(why) if why.contains("completed pod") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
