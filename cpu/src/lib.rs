//! Runs Headwater's graphs natively on the CPU.
//!
//! **Invariant: a graph gives the results that its operations' references define; only the order of rounding may
//! differ.** No operation is defined in this crate, and an operation without a kernel here runs its reference.
//!
//! Weights are packed once, when a plan is built, in the type that they have in the checkpoint, and widened block by block while they are
//! multiplied. AVX2, AVX-512 or NEON is picked when the program runs: one binary for every machine. Wide convolutions are products between
//! Winograd's transforms; attention's scores never leave the cache. Elementwise expressions become short programs over blocks that stay in
//! the first-level cache. Rayon spreads the work over all cores.

mod clock;
mod compile;
mod device;
mod eval;
mod gemm;
mod info;
mod kernels;
mod layout;
mod math;
mod memory;
mod parallel;
mod plan;
mod program;
mod weights;

pub use device::CpuDevice;
pub use plan::CpuPlan;
