//! Panics of libraries that read a user's file, turned into errors at this one border.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread would be caught and told as an error. A program's panic hook asks this, and prints nothing then.
#[must_use]
pub fn panics_are_contained() -> bool {
    CONTAINED.get()
}

/// Calls code that may panic on input that it does not expect; none if it did.
///
/// What it worked on must not be used afterwards unless it is known to be whole.
#[must_use]
pub fn contain<T>(work: impl FnOnce() -> T) -> Option<T> {
    let outer = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_nothing() {
        assert_eq!(contain(|| 3), Some(3));
        assert!(contain(|| assert!(panics_are_contained())).is_some());
        assert_eq!(contain(|| -> u8 { std::panic::resume_unwind(Box::new("damaged")) }), None);
        assert!(!panics_are_contained());
    }
}
