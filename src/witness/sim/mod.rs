//! Whole clusters of this code, on one clock, with everything that can go wrong between them.
//!
//! A node is a guard ([`Prover`](super::prover::Prover)) and a daemon ([`Owner`](super::owner::Owner) and
//! [`Voter`](super::voter::Voter)), two processes that talk by messages, each of which may be late, stopped, killed
//! and started again; its clock runs up to 1 % fast or slow. Datagrams are lost, late, doubled, one way only.
//! Requests to etcd are executed late, never, or without an answer.
//!
//! After every event, [`check`](cluster::Cluster) holds the cluster to this: who has proof, by the guard's word or by
//! the daemon's, has a lease that etcd has not ended, under which nothing was evicted; and of the nodes with proof at
//! most one serves the row.

mod cluster;
mod node;
mod scenarios;
