//! A whole cluster in one thread, under virtual time: members on machines that pause, crash and lose
//! what they had not synced, on disks that are slow or fail, over a network that delays, reorders,
//! repeats, loses and cuts; clients that write, read, watch and hold leases all the while; and the
//! members themselves replaced. What was seen is judged, each invariant in a file of its own.
//!
//! Every choice comes from one number, and the same number gives the same run, message by message:
//! `KONTIKI_SEED=n` runs that one, and a failure prints it. What would differ from run to run is
//! kept out: members draw random numbers from their machine, nothing has a thread of its own, every
//! `select!` is biased, and those who wait are woken in order (`kontiki_storage::latest`).
//! `KONTIKI_HOURS=n` runs fresh seeds for that long.

#![allow(clippy::unwrap_used, reason = "a harness of tests fails where it stands")]

mod simulation {
    mod bugs;
    mod clients;
    mod faults;
    mod history;
    mod invariants;
    mod network;
    mod observer;
    mod scenario;
    mod seeded;
    mod world;
}
