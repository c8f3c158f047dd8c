//! Where an elementwise operation finds its operands' elements.

use graph::shape::{broadcast_strides, numel, strides};

/// One operand's part of a run of output elements.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Run<'a> {
    /// An element each.
    Slice(&'a [f32]),
    /// One element for all.
    Splat(f32),
}

/// The axes along which several operands are read, merged where the strides of all operands allow it.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    /// Extents of the merged axes, never empty.
    pub(crate) extents: Vec<usize>,
    /// The stride of each operand along each merged axis.
    pub(crate) strides: Vec<Vec<usize>>,
}

impl Walk {
    /// Merges adjacent axes where one stride covers both in every operand.
    pub(crate) fn new(shape: &[usize], operands: &[Vec<usize>]) -> Walk {
        let mut walk = Walk { extents: Vec::new(), strides: vec![Vec::new(); operands.len()] };
        for (axis, extent) in shape.iter().copied().enumerate().filter(|(_, extent)| *extent != 1) {
            let continues = !walk.extents.is_empty()
                && walk.strides.iter().zip(operands).all(|(merged, own)| merged.last() == Some(&(own[axis] * extent)));
            if continues {
                *walk.extents.last_mut().expect("an axis was there") *= extent;
            } else {
                walk.extents.push(extent);
            }
            for (merged, own) in walk.strides.iter_mut().zip(operands) {
                if continues {
                    *merged.last_mut().expect("an axis was there") = own[axis];
                } else {
                    merged.push(own[axis]);
                }
            }
        }
        if walk.extents.is_empty() {
            walk.extents.push(1);
            walk.strides.iter_mut().for_each(|merged| merged.push(0));
        }
        walk
    }

    /// Extent of the last axis.
    pub(crate) fn row(&self) -> usize {
        self.extents[self.extents.len() - 1]
    }

    /// An operand's offset at row number `row`, counted over all axes but the last.
    #[inline(always)]
    pub(crate) fn row_offset(&self, operand: usize, mut row: usize) -> usize {
        let strides = &self.strides[operand];
        let mut offset = 0;
        for axis in (0..self.extents.len() - 1).rev() {
            offset += row % self.extents[axis] * strides[axis];
            row /= self.extents[axis];
        }
        offset
    }
}

/// How one operand lies under the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    /// Element for element.
    Along,
    /// A single element.
    Scalar,
    /// Repeated along some axes.
    Repeated,
}

/// The operands of an elementwise operation, broadcast to its result.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    walk: Walk,
    lies: Vec<Lies>,
}

impl Layout {
    pub(crate) fn new(out: &[usize], operands: &[&[usize]]) -> Layout {
        let walked: Vec<Vec<usize>> = operands.iter().map(|shape| broadcast_strides(shape, out)).collect();
        let walk = Walk::new(out, &walked);
        let natural = strides(&walk.extents);
        let lies = operands
            .iter()
            .zip(&walk.strides)
            .map(|(shape, strides)| match numel(shape) {
                1 => Lies::Scalar,
                _ if *strides == natural => Lies::Along,
                _ => Lies::Repeated,
            })
            .collect();
        Layout { walk, lies }
    }

    pub(crate) fn operands(&self) -> usize {
        self.lies.len()
    }

    /// Copies the elements that are not contiguous under output elements `start..start + room.len()`, so that `run`
    /// finds it.
    #[inline(always)]
    pub(crate) fn gather(&self, operand: usize, data: &[f32], start: usize, room: &mut [f32]) {
        if self.is_direct(operand, start, room.len()) {
            return;
        }
        let row = self.walk.row();
        let step = self.walk.strides[operand].last().copied().unwrap_or(0);
        let mut filled = 0;
        while filled < room.len() {
            let (number, inner) = ((start + filled) / row, (start + filled) % row);
            let len = (row - inner).min(room.len() - filled);
            let offset = self.walk.row_offset(operand, number) + inner * step;
            let target = &mut room[filled..filled + len];
            if step == 0 {
                target.fill(data[offset]);
            } else {
                target.copy_from_slice(&data[offset..offset + len]);
            }
            filled += len;
        }
    }

    /// The operand's elements under output elements `start..start + room.len()`, after `gather` filled `room`.
    #[inline(always)]
    pub(crate) fn run<'a>(&self, operand: usize, data: &'a [f32], start: usize, room: &'a [f32]) -> Run<'a> {
        match self.lies[operand] {
            Lies::Scalar => Run::Splat(data[0]),
            Lies::Along => Run::Slice(&data[start..start + room.len()]),
            Lies::Repeated if self.is_direct(operand, start, room.len()) => {
                let row = self.walk.row();
                let step = self.walk.strides[operand].last().copied().unwrap_or(0);
                let offset = self.walk.row_offset(operand, start / row) + start % row * step;
                if step == 0 { Run::Splat(data[offset]) } else { Run::Slice(&data[offset..offset + room.len()]) }
            }
            Lies::Repeated => Run::Slice(room),
        }
    }

    /// Whether the elements under a run of the output are contiguous in the operand too.
    #[inline(always)]
    fn is_direct(&self, operand: usize, start: usize, len: usize) -> bool {
        let row = self.walk.row();
        self.lies[operand] != Lies::Repeated || start % row + len <= row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(layout: &Layout, operand: usize, data: &[f32], start: usize, len: usize) -> Vec<f32> {
        let mut room = vec![f32::NAN; len];
        layout.gather(operand, data, start, &mut room);
        match layout.run(operand, data, start, &room) {
            Run::Slice(run) => run.to_vec(),
            Run::Splat(value) => vec![value; len],
        }
    }

    #[test]
    fn every_run_of_a_broadcast_operand_is_found() {
        let out = [2, 3, 1, 4, 5];
        let shapes: [&[usize]; 7] =
            [&[2, 3, 1, 4, 5], &[5], &[4, 1], &[3, 1, 1, 5], &[2, 1, 1, 1, 1], &[], &[2, 1, 1, 4, 5]];
        let layout = Layout::new(&out, &shapes);
        for (operand, shape) in shapes.iter().enumerate() {
            let data: Vec<f32> = (0..u16::try_from(numel(shape)).expect("small")).map(f32::from).collect();
            let mut want = Vec::new();
            graph::shape::for_each_offset(&out, [&broadcast_strides(shape, &out)], |_, [o]| want.push(data[o]));
            for start in 0..want.len() {
                for len in 1..=want.len() - start {
                    assert_eq!(elements(&layout, operand, &data, start, len), want[start..start + len], "{shape:?}");
                }
            }
        }
    }

    #[test]
    fn axes_merge_where_all_operands_continue() {
        let walk = |shape: &[usize], operands: &[&[usize]]| {
            let strides: Vec<_> = operands.iter().map(|o| broadcast_strides(o, shape)).collect();
            Walk::new(shape, &strides).extents
        };
        assert_eq!(walk(&[2, 3, 4], &[&[2, 3, 4], &[]]), [24]);
        assert_eq!(walk(&[2, 3, 4], &[&[2, 3, 4], &[2, 1, 4]]), [2, 3, 4]);
        assert_eq!(walk(&[2, 3, 4], &[&[2, 3, 4], &[4]]), [6, 4]);
        assert_eq!(walk(&[1, 1], &[&[]]), [1]);
    }
}
