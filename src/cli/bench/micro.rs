//! Single operations in the shapes in which models have them: no checkpoint is needed, and a faster kernel shows at once.

use super::against;
use super::row::{Row, Suite};
use crate::cli::error::CliError;
use crate::cli::kernel;
use graph::ops::Conv2d;
use graph::{Device, Graph, MemoryWeights, NodeTime, Rate, Scope};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// One operation.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// `[rows, inner]` by a weight `[columns, inner]`, with a bias.
    MatMul { rows: usize, columns: usize, inner: usize },
    /// Of one picture `[side, side, from]` to as many pixels of `to` channels, by a kernel of 3 × 3 pixels.
    Conv { side: usize, from: usize, to: usize },
    /// `queries` positions look at `keys` positions.
    Attention { batch: usize, queries: usize, keys: usize, channels: usize, heads: usize, causal: bool },
    /// Of one picture, in 32 groups.
    GroupNorm { side: usize, channels: usize },
    /// Of every row.
    LayerNorm { rows: usize, channels: usize },
}

use Shape::{Attention, Conv, GroupNorm, LayerNorm, MatMul};

/// Attention in which all see all.
const fn self_attention(positions: usize, channels: usize, heads: usize) -> Shape {
    Attention { batch: 1, queries: positions, keys: positions, channels, heads, causal: false }
}

/// Attention to a prompt's 77 tokens.
const fn cross_attention(queries: usize, channels: usize, heads: usize) -> Shape {
    Attention { batch: 1, queries, keys: 77, channels, heads, causal: false }
}

/// Model, where in it, and what. Stable Diffusion 1.5 makes 512 × 512 pixels, XL 1024 × 1024, for one sample unguided; the bundled model makes
/// 64 × 64 for one sample under guidance, which is two.
const SHAPES: &[(&str, &str, Shape)] = &[
    ("sd15", "resnet 64", Conv { side: 64, from: 320, to: 320 }),
    ("sd15", "resnet 32", Conv { side: 32, from: 640, to: 640 }),
    ("sd15", "resnet 16", Conv { side: 16, from: 1280, to: 1280 }),
    ("sd15", "resnet 8, up", Conv { side: 8, from: 2560, to: 1280 }),
    ("sd15", "query 64", MatMul { rows: 4096, columns: 320, inner: 320 }),
    ("sd15", "feed-forward in 64", MatMul { rows: 4096, columns: 2560, inner: 320 }),
    ("sd15", "feed-forward out 64", MatMul { rows: 4096, columns: 320, inner: 1280 }),
    ("sd15", "feed-forward in 16", MatMul { rows: 256, columns: 10_240, inner: 1280 }),
    ("sd15", "self-attention 64", self_attention(4096, 320, 8)),
    ("sd15", "self-attention 32", self_attention(1024, 640, 8)),
    ("sd15", "cross-attention 64", cross_attention(4096, 320, 8)),
    ("sd15", "group norm 64", GroupNorm { side: 64, channels: 320 }),
    ("sd15", "layer norm 64", LayerNorm { rows: 4096, channels: 320 }),
    ("sd15", "text feed-forward", MatMul { rows: 77, columns: 3072, inner: 768 }),
    ("sd15", "text attention", Attention { batch: 1, queries: 77, keys: 77, channels: 768, heads: 12, causal: true }),
    ("sd15", "decoder 64", Conv { side: 64, from: 512, to: 512 }),
    ("sd15", "decoder 512", Conv { side: 512, from: 128, to: 128 }),
    ("sd15", "decoder attention", self_attention(4096, 512, 1)),
    ("sd15", "decoder group norm 512", GroupNorm { side: 512, channels: 128 }),
    ("sdxl", "resnet 128", Conv { side: 128, from: 320, to: 320 }),
    ("sdxl", "resnet 64", Conv { side: 64, from: 640, to: 640 }),
    ("sdxl", "resnet 32", Conv { side: 32, from: 1280, to: 1280 }),
    ("sdxl", "query 64", MatMul { rows: 4096, columns: 640, inner: 640 }),
    ("sdxl", "query 32", MatMul { rows: 1024, columns: 1280, inner: 1280 }),
    ("sdxl", "feed-forward in 32", MatMul { rows: 1024, columns: 10_240, inner: 1280 }),
    ("sdxl", "feed-forward out 32", MatMul { rows: 1024, columns: 1280, inner: 5120 }),
    ("sdxl", "self-attention 64", self_attention(4096, 640, 10)),
    ("sdxl", "self-attention 32", self_attention(1024, 1280, 20)),
    ("sdxl", "cross-attention 32", cross_attention(1024, 1280, 20)),
    ("sdxl", "group norm 128", GroupNorm { side: 128, channels: 320 }),
    ("sdxl", "layer norm 32", LayerNorm { rows: 1024, channels: 1280 }),
    ("icons", "query", MatMul { rows: 128, columns: 256, inner: 256 }),
    ("icons", "feed-forward in", MatMul { rows: 128, columns: 1024, inner: 256 }),
    ("icons", "feed-forward out", MatMul { rows: 128, columns: 256, inner: 1024 }),
    ("icons", "modulation", MatMul { rows: 2, columns: 1536, inner: 256 }),
    ("icons", "self-attention", Attention { batch: 2, queries: 64, keys: 64, channels: 256, heads: 4, causal: false }),
    ("icons", "cross-attention", Attention { batch: 2, queries: 64, keys: 32, channels: 256, heads: 4, causal: false }),
    ("icons", "layer norm", LayerNorm { rows: 128, channels: 256 }),
];

impl Shape {
    /// The graph of this operation alone.
    fn graph(self) -> Result<Graph, graph::GraphError> {
        let s = Scope::root();
        let input = |name, shape: &[usize]| s.input(name, shape, Rate::Step);
        let y = match self {
            MatMul { rows, columns, inner } => s.linear(&input("x", &[rows, inner]), columns),
            Conv { side, from, to } => s.conv2d(&input("x", &[1, side, side, from]), to, 3, Conv2d::same(3)),
            Attention { batch, queries, keys, channels, heads, causal } => {
                let [k, v] = ["k", "v"].map(|name| input(name, &[batch, keys, channels]));
                input("q", &[batch, queries, channels]).attention(&k, &v, heads, causal, None)
            }
            GroupNorm { side, channels } => s.group_norm(&input("x", &[1, side, side, channels]), 32, 1e-5),
            LayerNorm { rows, channels } => s.layer_norm(&input("x", &[rows, channels]), 1e-5),
        };
        s.finish(&[("y", &y)])
    }

    /// As a row shows it.
    fn shown(self) -> String {
        match self {
            MatMul { rows, columns, inner } => format!("matmul {rows}x{columns}x{inner}"),
            Conv { side, from, to } => format!("conv {side}x{side} {from}-{to}"),
            Attention { batch: 1, queries, keys, channels, heads, .. } => {
                format!("{queries}x{keys}, {heads} heads of {}", channels / heads)
            }
            Attention { batch, queries, keys, channels, heads, .. } => {
                format!("{batch}x{queries}x{keys}, {heads} heads of {}", channels / heads)
            }
            GroupNorm { side, channels } => format!("{side}x{side}x{channels}"),
            LayerNorm { rows, channels } => format!("{rows}x{channels}"),
        }
    }
}

/// Times those shapes of which the name holds `only`.
pub(super) fn rows(device: &dyn Device, repeats: usize, only: Option<&str>) -> Result<Vec<Row>, CliError> {
    let mut rows = Vec::new();
    for (model, place, shape) in SHAPES {
        let part = format!("{model} {place}: {}", shape.shown());
        if only.is_some_and(|only| !part.contains(only)) {
            continue;
        }
        // The table comes at the end, which may be minutes away.
        if std::io::stderr().is_terminal() {
            note!("{part}");
        }
        let failed = |error: graph::GraphError| CliError::Failed(format!("{part}: {error}"));
        let (seconds, node) = time(device, &shape.graph().map_err(failed)?, repeats)?;
        let (flops, bytes) = node.map_or((0, 0), |node| (node.flops, node.bytes));
        rows.push(Row { suite: Suite::Micro, part, group: None, count: 1, seconds, flops, bytes, busy: None });
    }
    if let (Some(only), true) = (only, rows.is_empty()) {
        return Err(CliError::Usage(format!("no shape of the micro suite is called {only}")));
    }
    Ok(rows)
}

/// After as long a shape is timed no more often than a comparison needs: of the largest, ten times would take minutes.
const ENOUGH: Duration = Duration::from_secs(2);

/// Seconds of every run but the first by the device's own clock, and what the one operation of a graph costs.
pub(super) fn time(
    device: &dyn Device,
    graph: &Graph,
    repeats: usize,
) -> Result<(Vec<f64>, Option<NodeTime>), CliError> {
    let mut noise = Noise(1);
    let mut weights = MemoryWeights::default();
    for weight in graph.weights() {
        let values = noise.values(weight.shape.iter().product());
        weights.insert(weight.name, weight.shape, &values);
    }
    let mut plan = device.plan(&graph::passes::optimize(graph), &weights, kernel::plan_options(device.info())?)?;
    for node in graph.nodes() {
        if let graph::Op::Input(input) = &node.op {
            plan.write(&input.name, &noise.values(input.shape.iter().product()))?;
        }
    }
    let (mut seconds, mut slowest) = (Vec::with_capacity(repeats), None);
    let begun = Instant::now();
    for i in 0..=repeats {
        let started = Instant::now();
        let nodes = plan.profile()?;
        // Everything is one operation; should passes have made two of it, both count. A clock that shows nothing is not believed.
        let own: f64 = nodes.iter().map(|node| node.seconds).sum();
        if i > 0 {
            seconds.push(if own > 0.0 { own } else { started.elapsed().as_secs_f64() });
        }
        if i >= against::FEWEST && begun.elapsed() > ENOUGH {
            break;
        }
        slowest = nodes.into_iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
    }
    Ok((seconds, slowest))
}

/// Numbers of −0.5..0.5 in no order (a linear congruential generator; Knuth's constants).
struct Noise(u64);

impl Noise {
    #[allow(clippy::cast_precision_loss, reason = "24 bits fit")]
    fn values(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_one_operation_with_a_name_of_its_own() {
        let mut names: Vec<String> = Vec::new();
        for (model, place, shape) in SHAPES {
            let graph = shape.graph().expect("the shapes fit");
            let leaf = |node: &&graph::Node| !matches!(node.op, graph::Op::Input(_) | graph::Op::Weight(_));
            assert_eq!(graph.nodes().iter().filter(leaf).count(), 1, "{model} {place}");
            names.push(format!("{model} {place}: {}", shape.shown()));
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), SHAPES.len());
    }
}
