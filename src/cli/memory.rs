//! How much memory this machine has to spare, and how much this process holds.

/// Bytes that a program could take now without pushing others out, or its control group's limit; none where the system does not say.
pub(super) fn available() -> Option<u64> {
    let system = field(&read("/proc/meminfo")?, "MemAvailable:")?.checked_mul(1024)?;
    let group = || {
        let number = |file: &str| read(&format!("/sys/fs/cgroup/{file}"))?.trim().parse::<u64>().ok();
        // "max", where there is no limit, is no number. Pages of files count as used there, and go when they must.
        let files = field(&read("/sys/fs/cgroup/memory.stat")?, "file")?;
        Some(number("memory.max")?.saturating_sub(number("memory.current")?.saturating_sub(files)))
    };
    Some(group().map_or(system, |group| group.min(system)))
}

/// Bytes that this process holds; none where the system does not say.
#[cfg(feature = "serve")]
pub(super) fn resident() -> Option<u64> {
    field(&read("/proc/self/status")?, "VmRSS:")?.checked_mul(1024)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The first number after a word at the start of a line.
fn field(text: &str, word: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut line| (line.next()? == word).then(|| line.next()?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "MemTotal:       24600000 kB\nMemFree:  1 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(20_000_000));
        assert_eq!(field(text, "MemAvail"), None);
        assert_eq!(field("file max\n", "file"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
