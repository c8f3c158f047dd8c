//! Every kernel on a table of small odd problems, against its operation's reference.

mod common;

use common::{lavapipe, software};
use gpu::{Depth, GpuDevice, GpuOptions, selftest};
use std::collections::BTreeSet;

/// Runs the table and asserts that every kernel ran, in every storage format that the device has, and was right.
fn all_pass(device: &GpuDevice, depth: Depth) {
    let mut failures = Vec::new();
    let results = selftest(device, depth, |result| {
        if !result.passed() {
            failures.push(format!("{} {} ({}): {:?}", result.kernel, result.case, result.storage, result.outcome));
        }
    })
    .expect("the device survives");
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), results.len(), failures.join("\n"));

    let ran: BTreeSet<&str> = results.iter().map(|result| result.kernel).collect();
    let all: BTreeSet<&str> = shaders::KERNELS.iter().map(|kernel| kernel.name()).collect();
    // OpenGL has no subgroups, and no software driver has cooperative matrices.
    let profile = device.profile();
    let has = |name: &&str| match name {
        name if name.ends_with("_subgroup") => profile.subgroups,
        name if name.ends_with("_cooperative") => profile.cooperative.is_some(),
        name if name.ends_with("_eight_bits") => profile.integer_products,
        _ => true,
    };
    let all = all.into_iter().filter(has).collect();
    assert_eq!(ran, all);
    assert!(results.iter().any(|result| result.case.ends_with("folded")));
    let formats: BTreeSet<&str> = results.iter().map(|result| result.storage).collect();
    let f16 = device.profile().shader_f16.then_some(["f16", "all f16"]);
    assert_eq!(formats, ["f32", "packed f16", "q8_0"].into_iter().chain(f16.into_iter().flatten()).collect());
}

#[test]
fn trusted_kernels_match_their_references() {
    let device = lavapipe(GpuOptions { integer_products: true, ..GpuOptions::default() });
    assert!(device.profile().shader_f16, "lavapipe has half precision");
    assert!(device.profile().subgroups, "lavapipe has subgroups");
    all_pass(&device, Depth::Full);
}

#[test]
fn checked_kernels_match_their_references() {
    all_pass(&lavapipe(GpuOptions { checked: true, ..GpuOptions::default() }), Depth::Brief);
}

#[test]
fn kernels_match_their_references_on_gl() {
    let device = software("gl").open(GpuOptions::default()).expect("the software driver opens");
    all_pass(&device, Depth::Brief);
}
