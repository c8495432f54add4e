//! The cluster on etcd.
