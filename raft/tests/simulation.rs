//! A whole cluster in one thread, under virtual time, with an in-memory network that delays, drops
//! and cuts, and members that crash. What clients saw is checked afterwards.
//!
//! `KONTIKI_SEED=n` runs one seed; a failure names its seed.

#![allow(clippy::unwrap_used, reason = "a harness of tests fails where it stands")]

mod simulation {
    mod bugs;
    mod history;
    mod network;
    mod scenario;
    mod world;
}
