//! Whole clusters of members in this process, over real connections.

#![allow(clippy::unwrap_used, reason = "a harness of tests fails where it stands")]

mod cluster {
    mod etcd;
    mod faults;
    mod full_disk;
    mod harness;
    mod leases;
    mod members;
    mod recover;
    mod requests;
    mod restore;
    mod watches;
}
