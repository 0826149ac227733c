//! Whole clusters of members in this process, over real connections.

mod cluster {
    mod etcd;
    mod faults;
    mod harness;
    mod members;
    mod requests;
}
