//! What the kernel says of this process, from /proc.
//!
//! Promise: what cannot be read or parsed is left out of the answer; nothing here fails.

use std::fs;

use super::exposition::{Exposition, Kind, Value};

/// The standard `process_*` families of Prometheus' client libraries, as far as they could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Process {
    cpu_seconds: Option<f64>,
    start_time_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

/// Adds the `process_*` families. Reads files: for the control thread only.
pub(super) fn collect(out: &mut Exposition) {
    read().write(out);
}

fn read() -> Process {
    let ticks = fs::read("/proc/self/auxv").ok().and_then(|auxv| ticks_per_second(&auxv)).unwrap_or(100);
    let mut process = Process::default();
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
        process.parse_stat(&stat, ticks, booted);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        process.resident_bytes = kibibytes(&status, "VmRSS:");
        process.virtual_bytes = kibibytes(&status, "VmSize:");
    }
    // One of them is the descriptor that reads the folder.
    process.open_fds = fs::read_dir("/proc/self/fd").ok().map(|list| (list.count() as u64).saturating_sub(1));
    process.max_fds = fs::read_to_string("/proc/self/limits").ok().and_then(|text| max_fds(&text));
    process
}

impl Process {
    /// Fields of proc_pid_stat(5); they are counted from behind the name, which may hold anything.
    fn parse_stat(&mut self, stat: &str, ticks: u64, booted: Option<u64>) {
        let Some((_, fields)) = stat.rsplit_once(") ") else { return };
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // The state is field 3 in the manual's numbers and the first here.
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        let seconds = |count: u64| count as f64 / ticks as f64;
        if let (Some(user), Some(system)) = (field(14), field(15)) {
            self.cpu_seconds = Some(seconds(user.saturating_add(system)));
        }
        self.threads = field(20);
        if let (Some(started), Some(booted)) = (field(22), booted) {
            self.start_time_seconds = Some(booted as f64 + seconds(started));
        }
    }

    fn write(&self, out: &mut Exposition) {
        let rows: [(&'static str, &str, Kind, Option<Value>); 7] = [
            (
                "process_cpu_seconds_total",
                "User and system CPU time spent in seconds",
                Kind::Counter,
                self.cpu_seconds.map(Value::Number),
            ),
            (
                "process_start_time_seconds",
                "Start time of the process since the Unix epoch in seconds",
                Kind::Gauge,
                self.start_time_seconds.map(Value::Number),
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory in bytes",
                Kind::Gauge,
                self.resident_bytes.map(Value::Count),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory in bytes",
                Kind::Gauge,
                self.virtual_bytes.map(Value::Count),
            ),
            ("process_threads", "Threads of the process", Kind::Gauge, self.threads.map(Value::Count)),
            ("process_open_fds", "Open file descriptors", Kind::Gauge, self.open_fds.map(Value::Count)),
            (
                "process_max_fds",
                "File descriptors the process may open",
                Kind::Gauge,
                self.max_fds.map(Value::Count),
            ),
        ];
        for (name, help, kind, value) in rows {
            if let Some(value) = value {
                out.family(name, help, kind).sample(&[], value);
            }
        }
    }
}

/// AT_CLKTCK of the auxiliary vector (getauxval(3)): pairs of native words.
fn ticks_per_second(auxv: &[u8]) -> Option<u64> {
    const AT_CLKTCK: usize = 17;
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| bytes.try_into().map(usize::from_ne_bytes).ok();
    auxv.chunks_exact(2 * WORD)
        .find(|pair| word(&pair[..WORD]) == Some(AT_CLKTCK))
        .and_then(|pair| word(&pair[WORD..]))
        .map(|ticks| ticks as u64)
        .filter(|ticks| *ticks > 0)
}

fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_counted_from_behind_a_name_that_holds_parentheses() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 99 0 0 0 250 50 0 0 20 0 9 0 1000 1 2 3";
        let mut process = Process::default();
        process.parse_stat(stat, 100, Some(1_700_000_000));
        assert_eq!(process.cpu_seconds, Some(3.0));
        assert_eq!(process.threads, Some(9));
        assert_eq!(process.start_time_seconds, Some(1_700_000_010.0));
    }

    #[test]
    fn texts_that_are_cut_off_give_nothing() {
        let mut process = Process::default();
        for stat in ["", "7 (a", "7 (a) ", "7 (a) S 1 x"] {
            process.parse_stat(stat, 100, None);
        }
        assert_eq!(process, Process::default());
        assert_eq!(kibibytes("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(kibibytes("VmRSS:\t 12", "VmRSS:"), None);
        assert_eq!(max_fds("Limit\nMax open files            1024     524288   files\n"), Some(1024));
        assert_eq!(max_fds("Max open files   unlimited"), None);
        assert_eq!(boot_time("cpu 1\nbtime 17\n"), Some(17));
        assert_eq!(ticks_per_second(&[1, 2, 3]), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let process = read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.open_fds.is_some_and(|count| count > 0), "{process:?}");
        assert!(process.start_time_seconds.is_some_and(|at| at > 1.6e9), "{process:?}");
        assert!(process.cpu_seconds.is_some() && process.threads.is_some(), "{process:?}");
    }
}
