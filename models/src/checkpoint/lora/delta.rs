//! What a layer adds to a weight, as LyCORIS computes it (Yeh et al. 2024). Weights are seen as matrices: their rows
//! are output channels, and their columns input channels and a kernel's taps.

use super::spelling::Role;
use crate::checkpoint::safetensors_file::{TensorFile, TensorInfo};
use std::collections::BTreeMap;

/// The tensors of one layer, under the file's names.
pub(super) type Pieces = BTreeMap<Role, (String, TensorInfo)>;

/// A matrix, or a product of matrices.
#[derive(Debug, Clone)]
pub(super) struct Factor {
    left: TensorInfo,
    right: Option<TensorInfo>,
    /// `[i, j, taps…]`, put between `left` and `right`: Σ core\[i, j, …\] left\[p, i\] right\[j, r\].
    core: Option<TensorInfo>,
    /// `left` is stored as `[i, p]`.
    turned: bool,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// What is added before it is scaled.
#[derive(Debug, Clone)]
pub(super) enum Delta {
    /// LoRA, LoCon and full differences.
    One(Factor),
    /// LoHa (Hyeon-Woo et al. 2022): element by element.
    Hadamard(Factor, Factor),
    /// LoKr: every element of the first times the whole of the second.
    Kronecker(Factor, Factor),
}

/// DoRA: the sum is given these lengths, column by column or row by row.
#[derive(Debug, Clone)]
pub(super) struct Magnitude {
    pub(super) lengths: TensorInfo,
    /// Whether they are always those of rows.
    pub(super) of_rows: bool,
}

/// Numbers in rows.
pub(super) struct Matrix {
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

fn extent(info: &TensorInfo, axis: usize) -> usize {
    info.shape.get(axis).copied().unwrap_or(1)
}

fn rest(info: &TensorInfo, from: usize) -> usize {
    info.shape.iter().skip(from).product()
}

impl Factor {
    fn whole(info: TensorInfo) -> Self {
        let (rows, columns) = (extent(&info, 0), rest(&info, 1));
        Self { left: info, right: None, core: None, turned: false, rows, columns }
    }

    /// `left` times `right`; `None` when they do not fit each other.
    fn product(left: TensorInfo, right: TensorInfo, core: Option<TensorInfo>, turned: bool) -> Option<Self> {
        let flat = |info: &TensorInfo| info.shape.len() >= 2 && rest(info, 2) == 1;
        let (rank, rows) =
            if turned { (extent(&left, 0), extent(&left, 1)) } else { (extent(&left, 1), extent(&left, 0)) };
        let (inner, columns) = match &core {
            Some(core) if core.shape.len() < 2 || !flat(&right) || extent(core, 1) != extent(&right, 0) => return None,
            Some(core) => (extent(core, 0), extent(&right, 1).checked_mul(rest(core, 2))?),
            None => (extent(&right, 0), rest(&right, 1)),
        };
        if !flat(&left) || right.shape.len() < 2 || inner != rank || rows.checked_mul(columns).is_none() {
            return None;
        }
        Some(Self { left, right: Some(right), core, turned, rows, columns })
    }

    /// The rank of a product.
    fn rank(&self) -> Option<usize> {
        self.right.as_ref().map(|right| extent(right, 0))
    }

    fn shape(&self) -> String {
        let own = [Some(&self.left), self.core.as_ref(), self.right.as_ref()];
        own.into_iter().flatten().map(|info| format!("{:?}", info.shape)).collect::<Vec<_>>().join(" times ")
    }

    fn read(file: &TensorFile, info: &TensorInfo) -> Vec<f32> {
        file.to_f32(info).unwrap_or_default()
    }

    fn matrix(&self, file: &TensorFile) -> Matrix {
        let left = Self::read(file, &self.left);
        let (rows, columns) = (self.rows, self.columns);
        let Some(right) = &self.right else { return Matrix { columns, values: left } };
        let (rank, mut right) = (self.rank().unwrap_or(1), Self::read(file, right));
        let mut inner = rank;
        if let Some(core) = &self.core {
            // The core and the right matrix first: [i, r, taps].
            let (outer, taps) = (extent(core, 0), rest(core, 2));
            let channels = right.len() / rank;
            let core = Self::read(file, core);
            let mut product = vec![0.0; outer * columns];
            for (i, row) in product.chunks_exact_mut(columns).enumerate() {
                for j in 0..rank {
                    let own = &core[(i * rank + j) * taps..][..taps];
                    for (r, to) in row.chunks_exact_mut(taps).enumerate() {
                        let factor = right[j * channels + r];
                        to.iter_mut().zip(own).for_each(|(to, core)| *to += factor * core);
                    }
                }
            }
            (right, inner) = (product, outer);
        }
        let mut values = vec![0.0; rows * columns];
        for (p, row) in values.chunks_exact_mut(columns).enumerate() {
            for (i, own) in right.chunks_exact(columns).enumerate() {
                let factor = if self.turned { left[i * rows + p] } else { left[p * inner + i] };
                row.iter_mut().zip(own).for_each(|(to, own)| *to += factor * own);
            }
        }
        Matrix { columns, values }
    }

    /// No element is larger.
    fn bound(&self, file: &TensorFile) -> f64 {
        let largest = |info: &TensorInfo| {
            Self::read(file, info).iter().fold(0.0_f64, |largest, value| largest.max(f64::from(value.abs())))
        };
        let terms = self.rank().unwrap_or(1) * self.core.as_ref().map_or(1, |core| extent(core, 0));
        let factors = [Some(&self.left), self.core.as_ref(), self.right.as_ref()];
        factors.into_iter().flatten().map(largest).product::<f64>() * terms as f64
    }
}

impl Delta {
    /// Takes the tensors of a layer's weight out of `pieces`; `None` when there are none. The second value is the rank
    /// that alpha is divided by, if the layer has one.
    pub(super) fn take(pieces: &mut Pieces) -> Result<Option<(Self, Option<usize>)>, String> {
        use Role as R;
        let has = |pieces: &Pieces, roles: &[Role]| roles.iter().any(|role| pieces.contains_key(role));
        if has(pieces, &[R::Down, R::Up, R::Mid]) {
            let factor = factor(pieces, None, [R::Up, R::Down, R::Mid], false)?;
            let rank = factor.rank();
            return Ok(Some((Self::One(factor), rank)));
        }
        let first = [R::HadamardA1, R::HadamardB1, R::HadamardCore1];
        let second = [R::HadamardA2, R::HadamardB2, R::HadamardCore2];
        if has(pieces, &first) || has(pieces, &second) {
            let names = names(pieces);
            let (first, second) = (factor(pieces, None, first, true)?, factor(pieces, None, second, true)?);
            if (first.rows, first.columns) != (second.rows, second.columns) {
                let (first, second) = (first.shape(), second.shape());
                return Err(format!("has factors that do not fit each other at {names}: {first} and {second}"));
            }
            let rank = first.rank();
            return Ok(Some((Self::Hadamard(first, second), rank)));
        }
        let first = [R::KroneckerA1, R::KroneckerB1];
        let second = [R::KroneckerA2, R::KroneckerB2, R::KroneckerCore2];
        if has(pieces, &[R::Kronecker1, R::Kronecker2]) || has(pieces, &first) || has(pieces, &second) {
            let names = names(pieces);
            let first = factor(pieces, Some(R::Kronecker1), [first[0], first[1], R::HadamardCore1], true)?;
            let second = factor(pieces, Some(R::Kronecker2), second, true)?;
            let fits = first.rows.checked_mul(second.rows).is_some_and(|rows| {
                first.columns.checked_mul(second.columns).is_some_and(|columns| rows.checked_mul(columns).is_some())
            });
            if !fits {
                return Err(format!("has factors of a product that is larger than any memory at {names}"));
            }
            let rank = first.rank().or_else(|| second.rank());
            return Ok(Some((Self::Kronecker(first, second), rank)));
        }
        let whole = pieces.remove(&R::Difference).map(|(_, info)| Factor::whole(info));
        Ok(whole.map(|factor| (Self::One(factor), None)))
    }

    /// A difference that is stored as it is.
    pub(super) fn whole(info: TensorInfo) -> Self {
        Self::One(Factor::whole(info))
    }

    /// Rows and columns.
    pub(super) fn extents(&self) -> (usize, usize) {
        match self {
            Self::One(one) => (one.rows, one.columns),
            Self::Hadamard(one, _) => (one.rows, one.columns),
            Self::Kronecker(one, two) => (one.rows * two.rows, one.columns * two.columns),
        }
    }

    /// What is multiplied, for errors.
    pub(super) fn shape(&self) -> String {
        match self {
            Self::One(one) => one.shape(),
            Self::Hadamard(one, two) => format!("{} and {}", one.shape(), two.shape()),
            Self::Kronecker(one, two) => format!("{} around {}", one.shape(), two.shape()),
        }
    }

    /// All of it.
    pub(super) fn matrix(&self, file: &TensorFile) -> Matrix {
        match self {
            Self::One(one) => one.matrix(file),
            Self::Hadamard(one, two) => {
                let (mut one, two) = (one.matrix(file), two.matrix(file));
                one.values.iter_mut().zip(&two.values).for_each(|(one, two)| *one *= two);
                one
            }
            Self::Kronecker(one, two) => {
                let columns = one.columns * two.columns;
                let (one, two) = (one.matrix(file), two.matrix(file));
                let rows = one.values.chunks_exact(one.columns);
                let rows = rows.flat_map(|a| two.values.chunks_exact(two.columns).map(move |b| (a, b)));
                let values = rows.flat_map(|(a, b)| a.iter().flat_map(move |a| b.iter().map(move |b| a * b))).collect();
                Matrix { columns, values }
            }
        }
    }

    /// The two matrices of a plain product, so that it can be added without a matrix of the weight's size.
    pub(super) fn plain(&self, file: &TensorFile) -> Option<[Vec<f32>; 2]> {
        let Self::One(Factor { left, right: Some(right), core: None, turned: false, .. }) = self else { return None };
        Some([left, right].map(|info| Factor::read(file, info)))
    }

    /// No element is larger.
    pub(super) fn bound(&self, file: &TensorFile) -> f64 {
        match self {
            Self::One(one) => one.bound(file),
            Self::Hadamard(one, two) | Self::Kronecker(one, two) => one.bound(file) * two.bound(file),
        }
    }
}

/// The names of a layer's tensors, for errors.
fn names(pieces: &Pieces) -> String {
    pieces.values().next().map_or_else(String::new, |(name, _)| name.clone())
}

/// A factor that is whole, or a product of two matrices with an optional core. LyCORIS stores the left matrix of a
/// product with a core as `[rank, rows]`, where `turned` says so.
fn factor(
    pieces: &mut Pieces,
    whole: Option<Role>,
    [left, right, core]: [Role; 3],
    turned: bool,
) -> Result<Factor, String> {
    if let Some((_, info)) = whole.and_then(|role| pieces.remove(&role)) {
        return Ok(Factor::whole(info));
    }
    let core = pieces.remove(&core).map(|(_, info)| info);
    let (left, right) = (pieces.remove(&left), pieces.remove(&right));
    let (Some((name, left)), Some((_, right))) = (left.clone(), right.clone()) else {
        let one = left.or(right).map(|(name, _)| name).unwrap_or_else(|| names(pieces));
        return Err(format!("has only one of the two matrices of a product: {one} has no other"));
    };
    let shapes = format!("{:?} and {:?}", left.shape, right.shape);
    let turned = turned && core.is_some();
    Factor::product(left, right, core, turned)
        .ok_or_else(|| format!("has matrices that do not fit each other at {name}: {shapes}"))
}
