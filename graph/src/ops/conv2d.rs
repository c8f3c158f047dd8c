use crate::array::{Array, Real};
use crate::op::Operation;
use crate::shape::Shape;

/// Two-dimensional convolution (cross-correlation, as PyTorch's `conv2d`) of an image `[B, H, W, Ci]` → `[B, H', W', Co]`.
///
/// Operands: `x`, `weight [Co, KH, KW, Ci]`, and `bias [Co]` when `bias` is set. With `upsample` 2 the image is first enlarged by
/// repeating every pixel (nearest neighbour), without ever being stored so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Pixels between the places where the kernel is applied.
    pub stride: usize,
    /// Zeros put around the (enlarged) image: top, bottom, left, right.
    pub padding: [usize; 4],
    /// Factor of the enlargement, 1 or 2.
    pub upsample: usize,
    /// A third operand `[Co]` is added to every pixel.
    pub bias: bool,
}

impl Conv2d {
    /// Stride 1, with as much padding as keeps the image's size for an odd kernel: PyTorch's `padding = kernel // 2`.
    #[must_use]
    pub fn same(kernel: usize) -> Self {
        Self { stride: 1, padding: [kernel / 2; 4], upsample: 1, bias: true }
    }
}

/// The extents of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dDims {
    /// Images.
    pub batch: usize,
    /// Rows and columns of the operand as it is stored.
    pub input: [usize; 2],
    /// Rows and columns of the result.
    pub output: [usize; 2],
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Channels of the operand.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
}

impl Conv2dDims {
    /// Pixels of all results: rows of the matrix product that a convolution is.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.batch * self.output[0] * self.output[1]
    }

    /// Products summed for each element: kernel rows, kernel columns, channels, the last innermost.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.in_channels
    }
}

impl Conv2d {
    /// The extents for operands that `infer` accepted.
    #[must_use]
    pub fn dims(&self, x: &[usize], weight: &[usize], out: &[usize]) -> Conv2dDims {
        Conv2dDims {
            batch: x[0],
            input: [x[1], x[2]],
            output: [out[1], out[2]],
            kernel: [weight[1], weight[2]],
            in_channels: x[3],
            out_channels: weight[0],
        }
    }

    /// The stored row (or column) that output position `out` reads at kernel position `tap`, of an axis of `extent` stored pixels with
    /// `before` zeros in front; none in the padding.
    #[must_use]
    pub fn source(&self, out: usize, tap: usize, before: usize, extent: usize) -> Option<usize> {
        let at = (out * self.stride + tap).checked_sub(before)? / self.upsample;
        (at < extent).then_some(at)
    }
}

impl Operation for Conv2d {
    const NAME: &str = "conv2d";

    fn infer(&self, inputs: &[&[usize]]) -> Result<Shape, String> {
        let (x, weight) = match (inputs, self.bias) {
            ([x, weight], false) | ([x, weight, _], true) => (*x, *weight),
            _ => {
                return Err(format!("needs {} operands and has {}", 2 + usize::from(self.bias), inputs.len()));
            }
        };
        let (&[batch, height, width, channels], &[out, rows, columns, own]) = (x, weight) else {
            return Err(format!("cannot apply {weight:?} to {x:?}: both need four axes"));
        };
        if channels != own {
            return Err(format!("cannot apply {weight:?} to {x:?}: {own} is not {channels}"));
        }
        if self.stride == 0 || !(1..=2).contains(&self.upsample) || rows * columns * channels == 0 {
            return Err(format!("cannot apply {weight:?} with stride {} and upsample {}", self.stride, self.upsample));
        }
        if self.bias && *inputs[2] != [out] {
            return Err(format!("a bias of shape {:?} does not fit {out} channels", inputs[2]));
        }
        let [top, bottom, left, right] = self.padding;
        let extent = |pixels: usize, padding: usize, kernel: usize| {
            let room = (pixels * self.upsample + padding).checked_sub(kernel);
            room.map(|room| room / self.stride + 1)
                .ok_or_else(|| format!("cannot apply {weight:?} to {x:?}: the kernel is larger than the image"))
        };
        Ok(vec![batch, extent(height, top + bottom, rows)?, extent(width, left + right, columns)?, out])
    }

    fn reference<T: Real>(&self, inputs: &[&Array<T>], out: &[usize]) -> Array<T> {
        let (x, weight) = (inputs[0], inputs[1]);
        let dims = self.dims(&x.shape, &weight.shape, out);
        let [height, width] = dims.input;
        let channels = dims.in_channels;
        let mut result = Vec::with_capacity(dims.pixels() * dims.out_channels);
        for image in x.data.chunks_exact((height * width * channels).max(1)) {
            for row in 0..dims.output[0] {
                for column in 0..dims.output[1] {
                    for (o, kernel) in weight.data.chunks_exact(dims.taps()).enumerate() {
                        let mut sum = T::zero();
                        for (tap, kernel) in kernel.chunks_exact(channels).enumerate() {
                            let (tap_row, tap_column) = (tap / dims.kernel[1], tap % dims.kernel[1]);
                            let y = self.source(row, tap_row, self.padding[0], height);
                            let x = self.source(column, tap_column, self.padding[2], width);
                            if let (Some(y), Some(x)) = (y, x) {
                                let pixel = &image[(y * width + x) * channels..][..channels];
                                pixel.iter().zip(kernel).for_each(|(pixel, weight)| sum += *pixel * *weight);
                            }
                        }
                        result.push(if self.bias { sum + inputs[2].data[o] } else { sum });
                    }
                }
            }
        }
        Array::new(out, result)
    }

    fn flops(&self, inputs: &[&[usize]], out: &[usize]) -> u64 {
        let dims = self.dims(inputs[0], inputs[1], out);
        2 * (dims.pixels() * dims.taps() * dims.out_channels) as u64
    }
}
