//! The multi-version store: what etcd's `mvcc` is to etcd. It knows nothing of Raft, HTTP or
//! Kubernetes.

pub mod kv;
pub mod range;
pub mod revision;
pub mod watch;
