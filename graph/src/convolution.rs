//! How the native executor computes a convolution.

use crate::device::PlanOptions;
use crate::graph::{Graph, Node};
use crate::op::Op;
use crate::ops::{Conv2d, Conv2dDims};
use std::str::FromStr;

/// A way to compute convolutions on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Convolution {
    /// Winograd's transform where it is faster; else direct.
    #[default]
    Auto,
    /// The product of the image's patches with the kernel's matrix.
    Direct,
    /// Winograd's transform F(m×m, 3×3) with tiles of 2×2 or 4×4 wherever it applies (Lavin & Gray 2015, *Fast Algorithms for Convolutional
    /// Neural Networks*). It multiplies 2.25 or 4 times less, and its rounding errors are some 1.5 or 5 times as large.
    Winograd(Tile),
}

/// Each way with the name that users give it.
const NAMES: [(&str, Convolution); 4] = [
    ("auto", Convolution::Auto),
    ("direct", Convolution::Direct),
    ("winograd2", Convolution::Winograd(Tile::Two)),
    ("winograd4", Convolution::Winograd(Tile::Four)),
];

impl FromStr for Convolution {
    type Err = String;

    /// By its name; nothing means `auto`.
    fn from_str(name: &str) -> Result<Convolution, String> {
        if name.is_empty() {
            return Ok(Convolution::Auto);
        }
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, convolution)| *convolution).ok_or_else(|| {
            format!("{name} is no way to compute a convolution; there are {}", NAMES.map(|(name, _)| name).join(", "))
        })
    }
}

/// Pixels of the result that Winograd's transform computes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tile {
    /// 2×2, from 4×4 pixels of the operand.
    Two,
    /// 4×4, from 6×6.
    Four,
}

impl Tile {
    /// Its side in pixels of the result.
    #[must_use]
    pub fn side(self) -> usize {
        match self {
            Tile::Two => 2,
            Tile::Four => 4,
        }
    }

    /// Elements of a kernel's transform for each pair of channels: products for each tile.
    #[must_use]
    pub fn products(self) -> usize {
        (self.side() + 2).pow(2)
    }

    /// Tiles that cover one image's result.
    #[must_use]
    pub fn count(self, dims: &Conv2dDims) -> usize {
        dims.output[0].div_ceil(self.side()) * dims.output[1].div_ceil(self.side())
    }
}

/// The tile that the native executor computes this node with; none where it computes it directly.
#[must_use]
pub fn winograd(graph: &Graph, node: &Node, options: PlanOptions) -> Option<Tile> {
    let Op::Conv2d(op) = &node.op else { return None };
    let shape = |i: usize| &*graph.node(node.inputs[i]).shape;
    let dims = op.dims(shape(0), shape(1), &node.shape);
    let known = matches!(graph.node(node.inputs[1]).op, Op::Weight(_) | Op::Constant(_));
    let measured = || options.winners?.way(graph, node)?.parse().ok();
    let wanted = match options.convolution {
        Convolution::Auto => measured().unwrap_or_default(),
        forced => forced,
    };
    choose(op, &dims, wanted).filter(|_| known)
}

/// The names of all ways in which the native executor can compute this node, its own choice first; nothing where there is only one.
#[must_use]
pub fn convolution_ways(graph: &Graph, node: &Node) -> Vec<&'static str> {
    let tile = |convolution| winograd(graph, node, PlanOptions { convolution, ..Default::default() });
    let mut ways: Vec<_> =
        NAMES[1..].iter().filter(|(_, way)| *way == Convolution::Direct || tile(*way).is_some()).collect();
    let own = tile(Convolution::Auto).map_or(Convolution::Direct, Convolution::Winograd);
    ways.sort_by_key(|(_, way)| *way != own);
    if ways.len() < 2 { Vec::new() } else { ways.iter().map(|(name, _)| *name).collect() }
}

fn choose(op: &Conv2d, dims: &Conv2dDims, wanted: Convolution) -> Option<Tile> {
    let applies = dims.kernel == [3, 3] && op.stride == 1 && dims.pixels() > 0 && dims.out_channels > 0;
    match wanted {
        _ if !applies => None,
        Convolution::Direct => None,
        Convolution::Winograd(tile) => Some(tile),
        Convolution::Auto => fastest(dims),
    }
}

/// The tile that costs least, if any costs less than the direct way.
///
/// Costs are vector multiplications for each pair of channels, by the measurements in docs/benchmarks: the products themselves, and the transform
/// of the kernel, which is paid once for an image. Only one image counts, so that a sample comes out the same in a batch and alone. What
/// is transformed to and from tiles needs channels enough to be worth it.
fn fastest(dims: &Conv2dDims) -> Option<Tile> {
    if dims.in_channels.min(dims.out_channels) < FEWEST_CHANNELS {
        return None;
    }
    let direct = 9 * dims.output[0] * dims.output[1];
    let two = 21 * Tile::Two.count(dims) + 80;
    let four = 38 * Tile::Four.count(dims) + 250;
    let (cost, tile) = if two < four { (two, Tile::Two) } else { (four, Tile::Four) };
    (cost < direct).then_some(tile)
}

const FEWEST_CHANNELS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::winners::Winners;
    use crate::{Rate, Scope};

    fn dims(side: usize, channels: [usize; 2]) -> Conv2dDims {
        let [in_channels, out_channels] = channels;
        Conv2dDims { batch: 1, input: [side; 2], output: [side; 2], kernel: [3, 3], in_channels, out_channels }
    }

    #[test]
    fn wide_pictures_of_many_channels_are_transformed() {
        let same = Conv2d::same(3);
        let auto = |side, channels| choose(&same, &dims(side, channels), Convolution::Auto);
        // Stable Diffusion 1.5's UNet at 512² and 256², and its autoencoder.
        for (side, channels) in [(64, 320), (32, 640), (16, 1280), (8, 1280), (64, 512), (512, 128)] {
            assert_eq!(auto(side, [channels; 2]), Some(Tile::Four), "{side} {channels}");
        }
        // Tiles of 4×4 would compute much that is not there.
        assert_eq!(auto(6, [320; 2]), Some(Tile::Two));
        // The lowest level at 256², and the first and last layers.
        for (side, channels) in [(4, [1280, 1280]), (5, [640, 640]), (64, [4, 320]), (64, [320, 4]), (512, [128, 3])] {
            assert_eq!(auto(side, channels), None, "{side} {channels:?}");
        }
    }

    #[test]
    fn a_batch_is_computed_like_one_image() {
        for side in [4, 8, 16, 64] {
            let one = dims(side, [64; 2]);
            let of = |batch| choose(&Conv2d::same(3), &Conv2dDims { batch, ..one }, Convolution::Auto);
            assert_eq!(of(8), of(1), "{side}");
        }
    }

    #[test]
    fn what_is_forced_holds_wherever_it_applies() {
        let small = dims(3, [1, 2]);
        let same = Conv2d::same(3);
        for tile in [Tile::Two, Tile::Four] {
            let forced = Convolution::Winograd(tile);
            assert_eq!(choose(&same, &small, forced), Some(tile));
            assert_eq!(choose(&Conv2d { stride: 2, ..same }, &small, forced), None);
            assert_eq!(choose(&same, &Conv2dDims { kernel: [1, 1], ..small }, forced), None);
        }
        assert_eq!(choose(&same, &dims(512, [128; 2]), Convolution::Direct), None);
    }

    #[test]
    fn ways_have_names() {
        for (name, convolution) in NAMES {
            assert_eq!(name.parse(), Ok(convolution));
        }
        assert_eq!("".parse(), Ok(Convolution::Auto));
        assert!("fast".parse::<Convolution>().unwrap_err().contains("winograd4"));
    }

    #[test]
    fn what_was_measured_comes_before_the_rule_and_after_what_is_forced() {
        let s = Scope::root();
        let x = s.input("x", &[2, 64, 64, 320], Rate::Step);
        let y = s.at("down").conv2d(&s.at("conv").conv2d(&x, 320, 3, same()), 320, 3, Conv2d { stride: 2, ..same() });
        let graph = crate::passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit"));
        let node = |path: &str| {
            graph.nodes().iter().find(|node| node.path == path && !node.op.is_leaf()).expect("it is there")
        };
        let conv = node("conv");
        assert_eq!(convolution_ways(&graph, conv), ["winograd4", "direct", "winograd2"]);
        assert_eq!(convolution_ways(&graph, node("down")), [""; 0]);
        for (way, tile) in [("direct", None), ("winograd2", Some(Tile::Two)), ("no such way", Some(Tile::Four))] {
            let key = crate::shape_key(&graph, conv).expect("convolutions are measured");
            let winners: &Winners = Box::leak(Box::new([(key, way.to_owned())].into_iter().collect()));
            let options = PlanOptions { winners: Some(winners), ..Default::default() };
            assert_eq!(winograd(&graph, conv, options), tile, "{way}");
            let forced = PlanOptions { convolution: Convolution::Winograd(Tile::Two), ..options };
            assert_eq!(winograd(&graph, conv, forced), Some(Tile::Two), "{way}");
        }
    }

    fn same() -> Conv2d {
        Conv2d::same(3)
    }

    #[test]
    fn tiles_cover_the_result() {
        assert_eq!([Tile::Two, Tile::Four].map(|tile| tile.count(&dims(5, [1, 1]))), [9, 4]);
        assert_eq!([Tile::Two, Tile::Four].map(Tile::products), [16, 36]);
    }
}
