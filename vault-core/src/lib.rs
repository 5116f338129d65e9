//! Passhold.
