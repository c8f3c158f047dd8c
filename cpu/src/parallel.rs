//! The threads of a plan, and how work is cut into pieces for them.

use rayon::ThreadPool;
use std::cell::Cell;
use std::sync::Arc;

/// The threads a plan runs on: rayon's global pool unless a number was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Threads(pub(crate) Option<Arc<ThreadPool>>);

impl Threads {
    /// Runs `work` where `par_iter` uses these threads.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            None => work(),
            Some(pool) => pool.install(work),
        }
    }
}

/// The fewest elements to give to a thread, because waking one costs a few microseconds.
const LEAST_WORK: usize = 1 << 14;

/// Length of the pieces to cut `total` elements into, a multiple of `unit`: several per thread so that a slow thread
/// does not hold up the others, but none so small that handing it over costs more than computing it. `weight` is the
/// work of one element.
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
/// The memory is taken out while it is lent: a thread that waits inside `body` may be given another piece of work,
/// which then finds no memory here and allocates its own.
pub(crate) fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        // Nothing of it is kept, so that the larger one may lie where the smaller was.
        drop(std::mem::take(&mut scratch));
        scratch = vec![0.0; len];
    }
    let result = body(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}
