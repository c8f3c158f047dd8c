//! How work is cut into pieces for the threads.

use std::cell::Cell;

/// Elements a thread should at least be given: waking it costs a few microseconds.
const LEAST_WORK: usize = 1 << 14;

/// Length of the pieces to cut `total` elements into, a multiple of `unit`: several per thread so that a slow thread
/// does not hold up the others, but none too small to be worth handing over. `weight` is the work of one element.
pub(crate) fn piece(total: usize, unit: usize, weight: usize) -> usize {
    let unit = unit.max(1);
    let least = LEAST_WORK / weight.max(1);
    let fair = total.div_ceil(4 * rayon::current_num_threads());
    fair.max(least).div_ceil(unit).max(1) * unit
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's scratch memory, grown to `len` elements of unspecified value.
///
/// The memory is taken out while it is lent: a thread that waits inside `body` may be given another piece of work, which
/// then finds none and makes its own.
pub(crate) fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = body(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}
