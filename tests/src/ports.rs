//! Ports for processes that are told theirs on the command line.

use std::net::TcpListener;

/// How many neighbouring ports a cluster may use.
const COUNT: u16 = 40;

/// The first of forty neighbouring ports that nobody listens on.
///
/// # Panics
/// When there are none.
pub fn free() -> u16 {
    let seed = u16::try_from(std::process::id() % 260).unwrap_or(0);
    (0..260u16)
        .map(|step| 20_000 + (seed + step) % 260 * COUNT)
        .find(|&base| {
            (base..base + COUNT).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        })
        .expect("some ports must be free")
}
