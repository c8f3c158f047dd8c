//! The number types of safetensors, and as which of the types that devices take each is read.

use crate::checkpoint::safetensors_file::TensorInfo;
use graph::{StorageType, WeightView};
use safetensors::tensor::Dtype;
use std::borrow::Cow;

/// The numbers of a tensor that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// As they lie in the file.
    Stored(StorageType),
    /// Double precision, rounded to single.
    Double,
    /// Eight bits, all values of which half precision holds.
    Eight(Eight),
    /// A power of two.
    Exponent,
    /// A counter, a rank or a mark.
    Whole(Dtype),
}

/// Floating point numbers of eight bits (Micikevicius et al. 2022; the last two after Noune et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eight {
    /// Four bits of exponent, no infinities.
    E4m3,
    /// The upper half of half precision.
    E5m2,
    /// Half of E4M3's values, and one NaN in the place of a negative zero.
    E4m3Fnuz,
    /// The same of E5M2.
    E5m2Fnuz,
}

/// How a tensor's numbers are read; none where they cannot be. Whole numbers are read one at a time: a matrix of them is a
/// quantized weight, which means something else.
pub(crate) fn storage(info: &TensorInfo) -> Option<Numbers> {
    Some(match info.dtype {
        Dtype::F32 => Numbers::Stored(StorageType::F32),
        Dtype::F16 => Numbers::Stored(StorageType::F16),
        Dtype::BF16 => Numbers::Stored(StorageType::Bf16),
        Dtype::F64 => Numbers::Double,
        Dtype::F8_E4M3 => Numbers::Eight(Eight::E4m3),
        Dtype::F8_E5M2 => Numbers::Eight(Eight::E5m2),
        Dtype::F8_E4M3FNUZ => Numbers::Eight(Eight::E4m3Fnuz),
        Dtype::F8_E5M2FNUZ => Numbers::Eight(Eight::E5m2Fnuz),
        Dtype::F8_E8M0 => Numbers::Exponent,
        Dtype::BOOL
        | Dtype::U8
        | Dtype::I8
        | Dtype::U16
        | Dtype::I16
        | Dtype::U32
        | Dtype::I32
        | Dtype::U64
        | Dtype::I64
            if info.shape.iter().product::<usize>() == 1 =>
        {
            Numbers::Whole(info.dtype)
        }
        _ => return None,
    })
}

/// Whether no element is infinite or NaN, neither in the file nor as it is read.
pub(crate) fn finite(numbers: Numbers, bytes: &[u8]) -> bool {
    // Those, and only those, have all bits of the exponent set.
    let halves = |exponent: u16| bytes.chunks_exact(2).all(|b| u16::from_le_bytes([b[0], b[1]]) & exponent != exponent);
    match numbers {
        Numbers::Stored(StorageType::F32) => bytes.chunks_exact(4).all(|b| {
            const EXPONENT: u32 = 0x7F80_0000;
            u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & EXPONENT != EXPONENT
        }),
        Numbers::Stored(StorageType::F16) => halves(0x7C00),
        Numbers::Stored(StorageType::Bf16) => halves(0x7F80),
        Numbers::Double => doubles(bytes).all(f32::is_finite),
        Numbers::Eight(eight) => {
            let finite: Vec<bool> = (0..=u8::MAX).map(|byte| eight.value(byte).is_finite()).collect();
            bytes.iter().all(|byte| finite[usize::from(*byte)])
        }
        Numbers::Exponent => bytes.iter().all(|byte| *byte != u8::MAX),
        Numbers::Whole(_) => true,
    }
}

impl Numbers {
    /// The type as which devices get them.
    pub(crate) fn storage(self) -> StorageType {
        match self {
            Self::Stored(storage) => storage,
            Self::Eight(_) => StorageType::F16,
            Self::Double | Self::Exponent | Self::Whole(_) => StorageType::F32,
        }
    }

    /// A tensor of such numbers.
    pub(crate) fn view(self, shape: Vec<usize>, bytes: Cow<'_, [u8]>) -> WeightView<'_> {
        WeightView { storage: self.storage(), shape, bytes: self.read(bytes) }
    }

    /// Bytes of that type.
    fn read(self, bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
        let single = |values: &mut dyn Iterator<Item = f32>| Cow::Owned(values.flat_map(f32::to_le_bytes).collect());
        match self {
            Self::Stored(_) => bytes,
            Self::Double => single(&mut doubles(&bytes)),
            Self::Eight(eight) => {
                let halves = eight.halves();
                Cow::Owned(bytes.iter().flat_map(|byte| halves[usize::from(*byte)]).collect())
            }
            Self::Exponent => single(&mut bytes.iter().map(|byte| power_of_two(*byte))),
            Self::Whole(dtype) => single(&mut std::iter::once(whole(dtype, &bytes))),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is the point")]
fn doubles(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
}

/// The byte is an exponent as single precision stores it, but for the smallest, which has none, and the largest.
fn power_of_two(byte: u8) -> f32 {
    match byte {
        0 => f32::MIN_POSITIVE / 2.0,
        u8::MAX => f32::NAN,
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}

/// One whole number.
#[allow(clippy::cast_precision_loss, reason = "ranks and counters are small")]
fn whole(dtype: Dtype, bytes: &[u8]) -> f32 {
    let signed = matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64);
    let negative = signed && bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut wide = [if negative { 0xFF } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    i128::from_le_bytes(wide) as f32
}

impl Eight {
    /// The number that a byte stands for.
    fn value(self, byte: u8) -> f32 {
        let (fraction, bias, fnuz) = match self {
            Self::E4m3 => (3, 7, false),
            Self::E5m2 => (2, 15, false),
            Self::E4m3Fnuz => (3, 8, true),
            Self::E5m2Fnuz => (2, 16, true),
        };
        let magnitude = byte & 0x7F;
        let special = match self {
            Self::E4m3 => (magnitude == 0x7F).then_some(f32::NAN),
            Self::E5m2 => (magnitude >= 0x7C).then_some(if magnitude == 0x7C { f32::INFINITY } else { f32::NAN }),
            Self::E4m3Fnuz | Self::E5m2Fnuz => (byte == 0x80).then_some(f32::NAN),
        };
        let (exponent, steps) = (magnitude >> fraction, magnitude & ((1 << fraction) - 1));
        let steps = f32::from(steps) / f32::from(1_u8 << fraction);
        let finite = match exponent {
            // Numbers too small for an implied one.
            0 => steps * f32::powi(2.0, 1 - bias),
            _ => (1.0 + steps) * f32::powi(2.0, i32::from(exponent) - bias),
        };
        let size = special.unwrap_or(finite);
        if byte >= 0x80 && !(fnuz && size == 0.0) { -size } else { size }
    }

    /// Every byte in half precision.
    fn halves(self) -> Vec<[u8; 2]> {
        let bytes: Vec<u8> = (0..=u8::MAX).flat_map(|byte| self.value(byte).to_le_bytes()).collect();
        let view = WeightView { storage: StorageType::F32, shape: vec![256], bytes: Cow::Owned(bytes) };
        view.to_f16().iter().map(|half| half.to_bits().to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bytes of every type with eight bits, against PyTorch (`tests/goldens/make_eight_bits.py`); null stands for NaN.
    #[test]
    fn eight_bits_are_pytorchs() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/goldens/eight_bits.json")).expect("a table");
        for (name, dtype) in [
            ("float8_e4m3fn", Dtype::F8_E4M3),
            ("float8_e5m2", Dtype::F8_E5M2),
            ("float8_e4m3fnuz", Dtype::F8_E4M3FNUZ),
            ("float8_e5m2fnuz", Dtype::F8_E5M2FNUZ),
            ("float8_e8m0fnu", Dtype::F8_E8M0),
        ] {
            for (byte, wanted) in (0..=u8::MAX).zip(golden[name].as_array().expect("256 values")) {
                let info = TensorInfo { dtype, shape: vec![1], bytes: 0..1, scale: None };
                let numbers = storage(&info).expect("a type that is read");
                let bytes = numbers.read(Cow::Borrowed(std::slice::from_ref(&byte)));
                let view = WeightView { storage: numbers.storage(), shape: vec![1], bytes };
                let ours = view.to_f32()[0];
                let wanted = match wanted {
                    serde_json::Value::String(infinity) => infinity.parse().expect("inf or -inf"),
                    value => value.as_f64().unwrap_or(f64::NAN),
                };
                #[allow(clippy::cast_possible_truncation, reason = "every wanted number is one of f32")]
                let same = ours.to_bits() == (wanted as f32).to_bits() || (ours.is_nan() && wanted.is_nan());
                assert!(same, "{name} {byte:#x}: {ours} instead of {wanted}");
                assert_eq!(finite(numbers, &[byte]), wanted.is_finite(), "{name} {byte:#x}");
            }
        }
    }

    #[test]
    fn doubles_are_rounded_and_whole_numbers_are_single() {
        let info = |dtype, shape: &[usize]| TensorInfo { dtype, shape: shape.to_vec(), bytes: 0..0, scale: None };
        let read = |dtype, bytes: &[u8]| {
            let numbers = storage(&info(dtype, &[])).expect("a type that is read");
            let view =
                WeightView { storage: numbers.storage(), shape: vec![1], bytes: numbers.read(Cow::Borrowed(bytes)) };
            (view.to_f32()[0], finite(numbers, bytes))
        };
        assert_eq!(read(Dtype::F64, &0.1_f64.to_le_bytes()), (0.1, true));
        assert_eq!(read(Dtype::F64, &1e300_f64.to_le_bytes()), (f32::INFINITY, false));
        assert_eq!(read(Dtype::I64, &(-3_i64).to_le_bytes()), (-3.0, true));
        assert_eq!(read(Dtype::U8, &[200]), (200.0, true));
        assert_eq!(read(Dtype::I8, &[200]), (-56.0, true));
        assert_eq!(read(Dtype::BOOL, &[1]), (1.0, true));
        assert_eq!(storage(&info(Dtype::I8, &[2, 2])), None);
        assert_eq!(storage(&info(Dtype::F4, &[2])), None);
    }
}
