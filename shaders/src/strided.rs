use crate::prelude::Prelude;
use graph::shape::broadcast_strides;

/// How positions of a result map to elements of an operand: mixed-radix digits of the position, each times a stride.
///
/// Adjacent axes that one stride covers are merged into one digit, so that broadcast, slice and transpose need few
/// divisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strided {
    digits: Vec<Digit>,
    offset: usize,
}

/// `position / inner % extent · stride`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digit {
    inner: usize,
    extent: usize,
    stride: usize,
}

impl Strided {
    /// A result of shape `extents` that reads its operand with `strides`, from `offset` on.
    pub(crate) fn new(extents: &[usize], strides: &[usize], offset: usize) -> Self {
        // Built from the innermost axis outwards.
        let mut digits: Vec<Digit> = Vec::new();
        let mut inner = 1;
        for (&extent, &stride) in extents.iter().zip(strides).rev().filter(|(extent, _)| **extent != 1) {
            match digits.last_mut() {
                Some(last) if stride == last.stride * last.extent => last.extent *= extent,
                _ => digits.push(Digit { inner, extent, stride }),
            }
            inner *= extent;
        }
        digits.reverse();
        Self { digits, offset }
    }

    /// An operand of shape `from` broadcast to `to`.
    pub(crate) fn broadcast(from: &[usize], to: &[usize]) -> Self {
        Self::new(to, &broadcast_strides(from, to), 0)
    }

    /// Four positions from a multiple of four on read four adjacent elements, also from a multiple of four on.
    pub(crate) fn is_contiguous(&self) -> bool {
        let Some((last, outer)) = self.digits.split_last() else { return false };
        last.stride == 1
            && last.extent.is_multiple_of(4)
            && self.offset.is_multiple_of(4)
            && outer.iter().all(|digit| digit.stride.is_multiple_of(4))
    }

    /// Four positions from a multiple of four on read the same element.
    pub(crate) fn is_repeated(&self) -> bool {
        self.digits.last().is_some_and(|last| last.stride == 0 && last.extent.is_multiple_of(4))
    }

    /// The element's index as WGSL, for the position `i`. Extents and strides become parameters named after `name`.
    pub(crate) fn index(&self, prelude: &mut Prelude, name: &str) -> String {
        let mut terms = Vec::new();
        for (at, digit) in self.digits.iter().enumerate().filter(|(_, digit)| digit.stride != 0) {
            let mut term = String::from("i");
            if digit.inner != 1 {
                prelude.param(&format!("{name}_inner{at}"), digit.inner);
                term = format!("{term} / params.{name}_inner{at}");
            }
            if at != 0 {
                prelude.param(&format!("{name}_extent{at}"), digit.extent);
                term = format!("{term} % params.{name}_extent{at}");
            }
            if digit.stride != 1 {
                prelude.param(&format!("{name}_stride{at}"), digit.stride);
                term = format!("{term} * params.{name}_stride{at}");
            }
            terms.push(term);
        }
        if self.offset != 0 {
            prelude.param(&format!("{name}_offset"), self.offset);
            terms.push(format!("params.{name}_offset"));
        }
        if terms.is_empty() { "0u".into() } else { terms.join(" + ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(strided: &Strided) -> Vec<(usize, usize, usize)> {
        strided.digits.iter().map(|d| (d.inner, d.extent, d.stride)).collect()
    }

    #[test]
    fn axes_that_one_stride_walks_are_one_digit() {
        let check = |from: &[usize], to: &[usize], want: &[(usize, usize, usize)]| {
            assert_eq!(digits(&Strided::broadcast(from, to)), want, "{from:?} to {to:?}");
        };
        check(&[2, 3, 4], &[2, 3, 4], &[(1, 24, 1)]);
        check(&[4], &[2, 3, 4], &[(4, 6, 0), (1, 4, 1)]);
        check(&[2, 1, 4], &[2, 3, 4], &[(12, 2, 4), (4, 3, 0), (1, 4, 1)]);
        check(&[], &[2, 3], &[(1, 6, 0)]);
        check(&[3, 1], &[3, 1], &[(1, 3, 1)]);
        check(&[2, 1, 1, 5], &[2, 1, 3, 5], &[(15, 2, 5), (5, 3, 0), (1, 5, 1)]);
    }

    #[test]
    fn vectors_need_alignment() {
        let contiguous = |from: &[usize], to: &[usize]| Strided::broadcast(from, to).is_contiguous();
        assert!(contiguous(&[3, 8], &[3, 8]));
        assert!(contiguous(&[8], &[3, 8]));
        assert!(contiguous(&[2, 6], &[2, 6]), "twelve adjacent elements, whatever their rows");
        assert!(!contiguous(&[6], &[2, 6]));
        assert!(!contiguous(&[3, 1], &[3, 8]));
        assert!(Strided::broadcast(&[3, 1], &[3, 8]).is_repeated());
        assert!(!Strided::new(&[3, 8], &[9, 1], 0).is_contiguous(), "rows of nine");
        assert!(!Strided::new(&[3, 8], &[16, 1], 2).is_contiguous(), "offset");
    }
}
