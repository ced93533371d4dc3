//! The memcache worker's process.

use std::process::ExitCode;

// The system's allocator stays: under a churn of entries of 1 to 64 kB in a capacity of 256 MB its
// resident set was 281 MB at most, where mimalloc's was 438 MB and jemalloc's 348 MB. Larger entries
// are mappings of their own. With MALLOC_MMAP_THRESHOLD_=1048576, as bin/serve and the systemd unit set it, buffers of large puts
// are so too: after 150 puts of 7 MB (e2e/rude.test.mjs), about 55 MB stay resident instead of 80 to 230.
fn main() -> ExitCode {
    memcache::main()
}
