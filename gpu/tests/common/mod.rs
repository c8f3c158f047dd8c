//! The adapter that tests run on, and numbers for graphs.

#![allow(dead_code, reason = "each test file uses a part of this")]

use gpu::{Adapter, GpuDevice, GpuOptions, adapters};
use graph::random::SplitMix;
use graph::shape::numel;
use graph::{DeviceKind, Graph, MemoryWeights};

/// The software adapter of an interface. Tests never run on a real card by chance: its driver would decide their outcome.
///
/// # Panics
/// When there is none, because this crate cannot be tested without one.
pub(crate) fn software(backend: &str) -> Adapter {
    let found = adapters(backend.parse().expect("a known interface"));
    found.into_iter().find(|adapter| adapter.info().kind == DeviceKind::SoftwareGpu).unwrap_or_else(|| {
        let package = if backend == "gl" { "libegl1 libgl1-mesa-dri" } else { "mesa-vulkan-drivers" };
        panic!("these tests need Mesa's software driver for {backend}; on Debian: apt-get install {package}")
    })
}

/// Mesa's software Vulkan driver, opened.
pub(crate) fn lavapipe(options: GpuOptions) -> GpuDevice {
    software("vulkan").open(options).expect("the software driver opens")
}

/// Numbers between −1 and 1.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix(seed);
    (0..count).map(|_| random.signed()).collect()
}

/// Weights for a graph.
pub(crate) fn weights_for(graph: &Graph, seed: u64) -> MemoryWeights {
    let mut weights = MemoryWeights::default();
    for (spec, seed) in graph.weights().into_iter().zip(seed..) {
        let data = numbers(numel(&spec.shape), seed);
        weights.insert(spec.name, spec.shape, &data);
    }
    weights
}
