//! How the allocator keeps what is freed, so that the agent's memory is what it uses and not what it once used.
//!
//! Events are parsed on one thread and freed on another, and a batch of megabytes goes away as a whole. As glibc is set by
//! default, each thread keeps a heap of its own, and memory of a large block that was freed once is kept for good: half
//! as much again as is in use. Other allocators are left as they are.

/// Heaps that threads share.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS_MAX: i32 = 2;
/// A block of this size or larger goes back to the system when it is freed, and so does as much at the end of a heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK_BYTES_MIN: i32 = 128 << 10;

/// Sets it, before there is another thread. The environment's `MALLOC_...` variables, where they are set, were read before
/// and are overruled.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a call into the C library, which takes two numbers")]
pub(crate) fn keep_little() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, HEAPS_MAX),
        (libc::M_MMAP_THRESHOLD, GIVEN_BACK_BYTES_MIN),
        (libc::M_TRIM_THRESHOLD, GIVEN_BACK_BYTES_MIN),
    ] {
        // SAFETY: mallopt takes any numbers, and refuses what it does not know; that changes nothing.
        let _taken = unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_little() {}
