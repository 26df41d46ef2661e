//! What must hold of the project's text as a whole: which module may use which, the op table, forbidden words,
//! and documents that say what is there. Sizes of what clients download are measured by `cargo xtask test sizes`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod documents;
mod layers;
mod ops;
mod source;
mod words;
