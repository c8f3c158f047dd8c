//! What the system knows of this process. Nothing where it does not say.

/// Seconds that processors have spent on all its threads so far.
///
/// Linux counts them in hundredths (`USER_HZ`, which is 100 on every architecture that this program runs on).
#[allow(clippy::cast_precision_loss, reason = "a run of a thousand years would fit")]
pub(super) fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name comes second, in brackets, and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / 100.0)
}

/// The most memory that it ever held, in bytes; mapped pages of files count.
pub(super) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_worked_and_holds_memory() {
        assert!(super::processor_seconds().is_some_and(|seconds| seconds >= 0.0));
        assert!(super::peak_memory().is_some_and(|bytes| bytes > 1 << 16));
    }
}
