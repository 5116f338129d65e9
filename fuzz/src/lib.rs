//! What the fuzz targets have in common.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Runs `decode`, which may allocate four times its input and 64 KiB beyond what is allocated already: an allocation past
/// that fails, and so does the target.
pub fn bounded<T>(input: &[u8], decode: impl FnOnce() -> T) -> T {
    let limit = ALLOCATOR.allocated() + 4 * input.len() + 64 * 1024;
    ALLOCATOR.set_limit(limit).expect("above what is allocated");
    let result = decode();
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    result
}
