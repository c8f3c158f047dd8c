//! Weights that are kept in fewer bits are widened exactly: a plan gives, bit for bit, what it gives with singles that were rounded before.
#![allow(clippy::unwrap_used)]

mod common;

use cpu::CpuDevice;
use graph::ops::Conv2d;
use graph::{
    Convolution, Device, Graph, MemoryWeights, PlanOptions, Rate, Scope, Storage, StorageType, Tile, WeightSource,
    WeightView, passes, q8_0,
};
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A table, a convolution and two products, of which one has too short rows for blocks of 32; widths that are no multiple of any vector.
fn graph() -> Graph {
    let s = Scope::root();
    let ids = s.input("ids", &[64], Rate::Step);
    let table = s.at("table").embedding(&ids, 11, 32);
    let image = table.reshape(&[1, 8, 8, 32]);
    let conv = s.at("conv").conv2d(&image, 37, 3, Conv2d::same(3));
    let short = s.at("short").linear(&conv, 320);
    let y = s.at("long").linear(&short, 71);
    passes::optimize(&s.finish(&[("y", &y)]).unwrap())
}

/// A checkpoint's tensors, all stored alike.
struct Stored {
    storage: StorageType,
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl WeightSource for Stored {
    fn weight(&self, name: &str) -> Option<WeightView<'_>> {
        let (shape, bytes) = self.tensors.get(name)?;
        Some(WeightView { storage: self.storage, shape: shape.clone(), bytes: Cow::Borrowed(bytes) })
    }
}

fn values(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7 + seed * 13) as f32 * 0.618_034).fract() - 0.5).collect()
}

/// What comes out of the graph with these weights.
fn run(weights: &dyn WeightSource, storage: Storage, convolution: Convolution) -> (Vec<f32>, u64) {
    let options = PlanOptions { storage, convolution, ..Default::default() };
    let mut plan = CpuDevice::new(Some(3)).unwrap().plan(&graph(), weights, options).unwrap();
    plan.write("ids", &(0..64_u16).map(|i| f32::from(i * 5 % 11)).collect::<Vec<_>>()).unwrap();
    plan.run().unwrap();
    (plan.read("y").unwrap(), plan.memory().weights)
}

/// Rows of whole blocks are rounded by `blocks`, all other large weights by `other`, and what is small stays.
fn check(
    stored: StorageType,
    storage: Storage,
    blocks: impl Fn(&[f32]) -> Vec<f32>,
    other: impl Fn(f32) -> f32,
) -> u64 {
    let graph = graph();
    let (mut tensors, mut rounded) = (BTreeMap::new(), MemoryWeights::default());
    for (seed, spec) in graph.weights().into_iter().enumerate() {
        let all: Vec<f32> = values(seed, spec.shape.iter().product());
        let bytes = |value: &f32| match stored {
            StorageType::F32 => value.to_le_bytes().to_vec(),
            StorageType::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
            StorageType::Bf16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
        };
        tensors.insert(spec.name.clone(), (spec.shape.clone(), all.iter().flat_map(bytes).collect()));
        let as_stored = |value: &f32| match stored {
            StorageType::F32 => *value,
            StorageType::F16 => f16::from_f32(*value).to_f32(),
            StorageType::Bf16 => bf16::from_f32(*value).to_f32(),
        };
        let all: Vec<f32> = all.iter().map(as_stored).collect();
        let all = match spec.name.as_str() {
            "long.weight" => blocks(&all),
            // Blocks lie along what is summed: channels of a tap, as the kernel has them, and not taps of a channel, as the file does.
            "conv.weight" => {
                let tap = |n: usize, c: usize, t: usize| (n * 32 + c) * 9 + t;
                let mut out = all.clone();
                for n in 0..37 {
                    for t in 0..9 {
                        let row: Vec<f32> = (0..32).map(|c| all[tap(n, c, t)]).collect();
                        blocks(&row).into_iter().enumerate().for_each(|(c, value)| out[tap(n, c, t)] = value);
                    }
                }
                out
            }
            name if name.ends_with("bias") => all,
            _ => all.into_iter().map(&other).collect(),
        };
        rounded.insert(spec.name, spec.shape, &all);
    }
    let source = Stored { storage: stored, tensors };
    let mut bytes = 0;
    for convolution in [Convolution::Direct, Convolution::Winograd(Tile::Two), Convolution::Winograd(Tile::Four)] {
        let (got, held) = run(&source, storage, convolution);
        let (wanted, _) = run(&rounded, Storage::F32, convolution);
        assert!(got == wanted, "{stored:?} kept as {storage:?}, {convolution:?}");
        bytes = held;
    }
    bytes
}

#[test]
fn fewer_bits_give_what_rounded_singles_give() {
    let (table, conv, short, long) = (11 * 32, 37 * 9 * 32, 320 * 37, 71 * 320);
    let biases = 4 * (37 + 320 + 71);
    let same = |row: &[f32]| row.to_vec();
    let all =
        |round: fn(f32) -> f32| move |row: &[f32]| -> Vec<f32> { row.iter().map(|value| round(*value)).collect() };
    let half = |value| f16::from_f32(value).to_f32();
    let eighths = |row: &[f32]| q8_0::values(&q8_0::quantize(row).unwrap());
    let halves = 2 * (table + conv + short + long) + biases;
    for stored in [StorageType::F32, StorageType::F16, StorageType::Bf16] {
        let singles = check(stored, Storage::F32, same, |value| value);
        assert_eq!(singles, (4 * (table + conv + short + long) + biases) as u64);
        assert_eq!(check(stored, Storage::F16, all(half), half), halves as u64);
        let kept = if stored == StorageType::F32 { singles } else { halves as u64 };
        assert_eq!(check(stored, Storage::Auto, same, |value| value), kept);
        let blocks = (conv + long) / q8_0::BLOCK * q8_0::BLOCK_BYTES + 2 * (table + short) + biases;
        assert_eq!(check(stored, Storage::Q8_0, eighths, half), blocks as u64);
    }
}
