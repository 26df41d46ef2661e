//! Proof that bytes are what was published: digests. No I/O.

pub mod digest;
