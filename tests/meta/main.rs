//! What must hold of the project's text as a whole: which module may use which, the op table, forbidden words, sizes of
//! what clients download, and documents that say what is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documents;
mod layers;
mod ops;
mod sizes;
mod source;
mod words;
