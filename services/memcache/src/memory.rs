//! How much memory this machine has.

use std::fs;

use wire::config::MEGABYTE;

/// The largest capacity that is allowed, in megabytes: three quarters of the machine's memory, or of
/// the memory that this process's control group may use.
pub(crate) fn largest_capacity_mb() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    let group =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let bytes = [machine, group].into_iter().flatten().min().unwrap_or(4 << 30);
    (bytes / 4 * 3 / MEGABYTE).max(1)
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_line_is_read() {
        assert_eq!(total_bytes("MemTotal:       24575360 kB\nMemFree: 1 kB\n"), Some(24_575_360 * 1024));
        assert_eq!(total_bytes("nothing"), None);
        assert!(largest_capacity_mb() >= 1);
    }
}
