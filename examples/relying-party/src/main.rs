//! Passhold.
fn main() {}
