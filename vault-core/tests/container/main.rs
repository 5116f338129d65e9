//! The container against everything that can happen to its file: whatever is done to it, it answers as
//! before or names what is broken, and what it cannot read it does not overwrite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]
#![allow(clippy::as_conversions, clippy::cast_precision_loss, unreachable_pub)]

mod bench;
mod errors;
mod flips;
mod log;
mod model;
mod splices;
