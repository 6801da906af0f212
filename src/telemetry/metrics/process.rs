//! What the system says about this process, under the names that Prometheus clients share. What
//! cannot be read is left out.

use std::fs;

pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_descriptors: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        Process {
            cpu_seconds: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds),
            resident_bytes: resident_bytes(),
            // One of them is open for counting.
            open_descriptors: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|all| all.count().saturating_sub(1) as u64),
        }
    }
}

/// Fields 14 and 15 of proc_pid_stat(5), counted behind the command's name, which may hold spaces.
/// They are in units of USER_HZ, which the Linux ABI fixes to 100 a second.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}

/// What the process has in memory.
pub fn resident_bytes() -> Option<u64> {
    fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes_in)
}

fn resident_bytes_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_an_odd_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 12345";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("42 (a"), None);
        assert_eq!(resident_bytes_in("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2048 * 1024));
        assert_eq!(resident_bytes_in("Name:\tx\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_can_be_read() {
        let process = Process::now();
        assert!(process.cpu_seconds.is_some());
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(process.open_descriptors.is_some_and(|count| count >= 3));
    }
}
