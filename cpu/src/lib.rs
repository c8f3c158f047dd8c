//! Runs Headwater's graphs natively on the CPU.
//!
//! **Invariant: a graph means here what its operations' references say; only the order of rounding may differ.** No
//! operation is defined in this crate, and whatever has no kernel of its own runs its reference.
//!
//! Matrix products come from `rten-gemm`, which packs weights once, when a plan is built, and picks AVX2, AVX-512 or
//! NEON when the program runs: one binary for every machine. Elementwise expressions become short programs over blocks
//! that stay in the first-level cache. All cores take part, through rayon.

mod compile;
mod device;
mod eval;
mod info;
mod kernels;
mod layout;
mod math;
mod parallel;
mod plan;
mod program;
mod weights;

pub use device::CpuDevice;
pub use plan::CpuPlan;
