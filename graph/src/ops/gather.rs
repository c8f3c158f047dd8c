use crate::array::{Array, Real};
use crate::op::{Operation, arity};
use crate::shape::Shape;

/// Rows of a table: `table [R, C]`, `ids […]` → `[…, C]`.
///
/// Ids are whole numbers held as activations. An id outside the table reads its nearest row, so that a faulty id can
/// never read out of bounds on a device. Whoever makes ids makes sure that they exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gather;

impl Operation for Gather {
    const NAME: &str = "gather";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let [table, ids] = arity(inputs)?;
        let [rows, channels] = *table else {
            return Err(format!("a table needs two axes and has {table:?}"));
        };
        if rows == 0 || rows > 1 << 24 {
            return Err(format!("a table of {rows} rows cannot be addressed by f32 ids"));
        }
        Ok(ids.iter().copied().chain([channels]).collect())
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let (table, ids) = (inputs[0], inputs[1]);
        let [rows, channels] = table.shape[..] else { unreachable!("infer checked the rank") };
        let mut data = Vec::with_capacity(ids.data.len() * channels);
        for id in &ids.data {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is the meaning")]
            let row = (id.to_f64() as usize).min(rows - 1);
            data.extend_from_slice(&table.data[row * channels..(row + 1) * channels]);
        }
        Array::new(out, data)
    }
}
