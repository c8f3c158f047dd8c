//! Shapes, strides and broadcasting, all row-major with the last axis contiguous.

/// Extents of a tensor, outermost first. A scalar has no axes.
pub type Shape = Vec<usize>;

/// Number of elements of a shape.
#[must_use]
pub fn numel(shape: &[usize]) -> usize {
    shape.iter().fold(1, |all: usize, extent| all.saturating_mul(*extent))
}

/// Row-major strides, in elements.
#[must_use]
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// The shape two operands broadcast to (NumPy's rule: axes are aligned at the right, an extent of one stretches).
#[must_use]
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Shape> {
    let rank = a.len().max(b.len());
    (0..rank)
        .map(|axis| {
            let extent = |shape: &[usize]| (axis + shape.len()).checked_sub(rank).map_or(1, |own| shape[own]);
            match (extent(a), extent(b)) {
                (x, y) if x == y => Some(x),
                (1, y) => Some(y),
                (x, 1) => Some(x),
                _ => None,
            }
        })
        .collect()
}

/// Strides with which an operand of shape `from` is read when it is broadcast to `to`: zero along stretched axes.
///
/// `from` must broadcast to `to`.
#[must_use]
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let own = strides(from);
    let missing = to.len() - from.len();
    (0..to.len())
        .map(|axis| match axis.checked_sub(missing) {
            Some(own_axis) if from[own_axis] == to[axis] => own[own_axis],
            _ => 0,
        })
        .collect()
}

/// Calls `visit(linear index, offsets)` for every element of `shape` in row-major order, where `offsets[i]` is the
/// element's offset in an operand read with `operand_strides[i]`.
pub fn for_each_offset<const N: usize>(
    shape: &[usize],
    operand_strides: [&[usize]; N],
    mut visit: impl FnMut(usize, [usize; N]),
) {
    let total = numel(shape);
    let mut index = vec![0; shape.len()];
    let mut offsets = [0; N];
    for linear in 0..total {
        visit(linear, offsets);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            for (offset, strides) in offsets.iter_mut().zip(&operand_strides) {
                *offset += strides[axis];
            }
            if index[axis] < shape[axis] {
                break;
            }
            for (offset, strides) in offsets.iter_mut().zip(&operand_strides) {
                *offset -= strides[axis] * shape[axis];
            }
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let check = |a: &[usize], b: &[usize], want: Option<&[usize]>| {
            assert_eq!(broadcast(a, b).as_deref(), want, "{a:?} with {b:?}");
            assert_eq!(broadcast(b, a).as_deref(), want, "{b:?} with {a:?}");
        };
        check(&[2, 3], &[3], Some(&[2, 3]));
        check(&[2, 1, 4], &[3, 1], Some(&[2, 3, 4]));
        check(&[], &[5], Some(&[5]));
        check(&[2, 3], &[2], None);
        check(&[1], &[1, 1], Some(&[1, 1]));
    }

    #[test]
    fn offsets_walk_broadcast_operands() {
        let shape = [2, 3];
        let mut seen = Vec::new();
        for_each_offset(&shape, [&broadcast_strides(&[3], &shape), &broadcast_strides(&[2, 1], &shape)], |i, o| {
            seen.push((i, o[0], o[1]));
        });
        assert_eq!(seen, [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 0, 1), (4, 1, 1), (5, 2, 1)]);
    }
}
