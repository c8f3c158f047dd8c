//! Every variant in every storage format under every profile composes, validates, keeps the profile's limits, and
//! translates to what the drivers take. No GPU is needed.

mod support;

use graph::cases::Case;
use naga::back;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use shaders::{Format, KERNELS, Profile, Shader, candidates};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;
use support::{all_cases, problem, takes_any_format};

/// A distinct module of the table under a profile, with what it came from.
struct Composed {
    shader: Shader,
    /// Of its text among all texts: profiles differ in what they allow, seldom in the text.
    text: usize,
    profile: Profile,
    bindings: usize,
    label: String,
}

/// Every format of operands, and of results.
fn formats() -> impl Iterator<Item = (Format, Format)> {
    Format::ALL.into_iter().flat_map(|format| [(format, Format::F32), (format, Format::F16)])
}

/// All distinct modules of the table under each profile.
static COMPOSED: LazyLock<Vec<Composed>> = LazyLock::new(|| {
    let mut texts: HashMap<String, usize> = HashMap::new();
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for profile in [Profile::web_default(), Profile::lavapipe(), Profile::desktop(), Profile::cooperative()] {
        for case in all_cases() {
            for (format, result) in formats() {
                for shader in candidates(&problem(&case, format, result), &profile) {
                    let next = texts.len();
                    let text = *texts.entry(shader.source.clone()).or_insert(next);
                    if seen.insert((profile.name.clone(), text)) {
                        let (kernel, op, profile) = (shader.kernel, &case.op, profile.clone());
                        let label = format!(
                            "{kernel} for {op:?} {} in {format:?} to {result:?} on {}",
                            case.label, profile.name
                        );
                        let bindings = case.sources().count() + 1;
                        all.push(Composed { shader, text, profile, bindings, label });
                    }
                }
            }
        }
    }
    all
});

/// Every text once, parsed; in order.
static MODULES: LazyLock<Vec<naga::Module>> = LazyLock::new(|| {
    let mut modules = Vec::new();
    for Composed { shader, text, label, .. } in COMPOSED.iter() {
        if *text == modules.len() {
            let parsed = naga::front::wgsl::parse_str(&shader.source);
            modules.push(
                parsed.unwrap_or_else(|e| panic!("{label}\n{}\n{}", shader.source, e.emit_to_string(&shader.source))),
            );
        }
    }
    modules
});

/// What a profile allows.
fn capabilities(profile: &Profile) -> Capabilities {
    // Reading halves out of words (unpack2x16float) is part of WGSL; naga counts it apart for the sake of OpenGL 3.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SHADER_FLOAT16, profile.shader_f16);
    capabilities.set(Capabilities::SUBGROUP, profile.subgroups);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, profile.cooperative.is_some());
    capabilities
}

fn validate(composed: &Composed) -> ModuleInfo {
    let Composed { shader, text, profile, label, .. } = composed;
    Validator::new(ValidationFlags::all(), capabilities(profile))
        .validate(&MODULES[*text])
        .unwrap_or_else(|e| panic!("{label}\n{}\n{}", shader.source, e.emit_to_string(&shader.source)))
}

#[test]
fn every_variant_validates_within_its_limits() {
    let (mut reached, mut valid) = (BTreeSet::new(), HashSet::new());
    for composed in COMPOSED.iter() {
        let Composed { shader, text, profile, bindings, label } = composed;
        reached.insert(shader.kernel);
        // What two profiles allow alike is valid under both or neither.
        if valid.insert((*text, capabilities(profile).bits())) {
            validate(composed);
        }
        let module = &MODULES[*text];
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).expect("a validated module has a layout");

        let (mut storage, mut workgroup, mut uniform) = (Vec::new(), 0, None);
        for (_, variable) in module.global_variables.iter() {
            let size = layouter[variable.ty].size;
            match variable.space {
                naga::AddressSpace::Storage { access } => {
                    let binding = variable.binding.expect("storage is bound").binding as usize;
                    storage.push((binding, access.contains(naga::StorageAccess::STORE)));
                }
                naga::AddressSpace::Uniform => uniform = Some((variable.binding.map(|b| b.binding as usize), size)),
                naga::AddressSpace::WorkGroup => workgroup += size,
                _ => {}
            }
        }
        storage.sort_unstable();
        let wanted: Vec<(usize, bool)> = (0..*bindings).map(|i| (i, i + 1 == *bindings)).collect();
        assert_eq!(storage, wanted, "{label}: operands, then the result");
        assert!(storage.len() <= profile.max_storage_bindings as usize, "{label}");
        let (at, size) = uniform.expect("there are parameters");
        assert_eq!(at, Some(*bindings), "{label}: parameters come last");
        assert!(size as usize <= (shader.params.len() * 4).next_multiple_of(16), "{label}: {size} bytes of parameters");
        assert!(workgroup <= profile.max_workgroup_storage, "{label}: {workgroup} bytes of workgroup memory");

        let entry = &module.entry_points[0];
        assert_eq!((entry.name.as_str(), module.entry_points.len()), ("main", 1), "{label}");
        let limits = entry.workgroup_size.iter().zip(&profile.max_workgroup_size);
        assert!(limits.clone().all(|(own, limit)| own <= limit), "{label}: {:?}", entry.workgroup_size);
        assert!(entry.workgroup_size.iter().product::<u32>() <= profile.max_workgroup_invocations, "{label}");
        assert!(shader.groups.iter().all(|n| (1..=profile.max_groups).contains(n)), "{label}: {:?}", shader.groups);
    }
    let all: BTreeSet<&str> = KERNELS.iter().map(|kernel| kernel.name()).collect();
    assert_eq!(all.len(), KERNELS.len(), "names are unique");
    assert_eq!(reached, all, "the table reaches every kernel");
}

#[test]
fn every_problem_has_its_naive_kernel_last() {
    for profile in [Profile::web_default(), Profile::lavapipe(), Profile::desktop(), Profile::cooperative()] {
        for case in all_cases() {
            for (format, result) in formats() {
                let shaders = candidates(&problem(&case, format, result), &profile);
                let needs_f16 = shaders.is_empty();
                let extras = case.epilogue.as_ref().is_some_and(|(_, extras)| !extras.is_empty());
                let has_weights = takes_any_format(&case).contains(&true) || extras;
                assert_eq!(
                    needs_f16,
                    (format == Format::F16 && has_weights || result == Format::F16) && !profile.shader_f16,
                    "{case:?} in {format:?} to {result:?} on {}",
                    profile.name
                );
                // Naive attention adds up in its result, which must be of singles.
                let naive = case.op.name() != "attention" || result == Format::F32;
                if let Some(last) = shaders.last().filter(|_| naive) {
                    assert!(last.kernel.ends_with("_naive"), "{case:?}: {}", last.kernel);
                }
            }
        }
    }
}

#[test]
fn shapes_stay_out_of_the_text() {
    let profile = Profile::desktop();
    let first = |case: &Case| candidates(&problem(case, Format::F32, Format::F32), &profile).into_iter().next_back();
    let cases = all_cases();
    let op = &cases[0].op;
    let sources: HashSet<String> = cases
        .iter()
        .filter(|case| case.op == *op && case.epilogue.is_none())
        .filter_map(|case| first(case).map(|shader| shader.source))
        .collect();
    assert_eq!(sources.len(), 1, "naive products of all sizes share a module");
}

#[test]
fn many_groups_fold_over_two_dimensions() {
    let op = graph::Op::from(graph::ops::Transpose { axes: vec![1, 0] });
    let (from, out) = ([3, 20_000_001], [20_000_001, 3]);
    let operand = shaders::Operand { shape: &from, format: Format::F32 };
    let problem = shaders::Problem {
        op: &op,
        operands: vec![operand],
        epilogue: None,
        extras: Vec::new(),
        out: &out,
        result: Format::F32,
    };
    let shader = candidates(&problem, &Profile::web_default()).pop().expect("a kernel applies");
    let [x, y, z] = shader.groups.map(u64::from);
    assert!(x <= 65_535 && y > 1 && z == 1, "{:?}", shader.groups);
    assert!(x * y * 64 >= 60_000_003 && x * (y - 1) * 64 < 60_000_003 + x * 64, "{:?}", shader.groups);
    assert_eq!(shader.params[0], shader.groups[0], "the body unfolds with the first extent");
}

#[test]
fn more_operands_than_bindings_have_no_kernel() {
    let op = graph::Op::from(graph::ops::Concat { axis: 0 });
    let problem = |n: usize, out: &'static [usize]| shaders::Problem {
        op: &op,
        operands: vec![shaders::Operand { shape: &[2, 4], format: Format::F32 }; n],
        epilogue: None,
        extras: Vec::new(),
        out,
        result: Format::F32,
    };
    assert_eq!(candidates(&problem(7, &[14, 4]), &Profile::web_default()).len(), 2);
    assert_eq!(candidates(&problem(8, &[16, 4]), &Profile::web_default()).len(), 0);
    assert_eq!(candidates(&problem(8, &[16, 4]), &Profile::desktop()).len(), 2);
}

#[test]
fn constants_that_wgsl_cannot_spell_are_parameters() {
    let expr = graph::Expr::binary(
        graph::expr::Binary::Max,
        graph::Expr::Input(0),
        graph::Expr::binary(graph::expr::Binary::Div, graph::Expr::Const(-1.0), graph::Expr::Const(0.0)),
    );
    let op = graph::Op::from(graph::ops::Elementwise { expr });
    let operand = shaders::Operand { shape: &[3], format: Format::F32 };
    let problem = shaders::Problem {
        op: &op,
        operands: vec![operand],
        epilogue: None,
        extras: Vec::new(),
        out: &[3],
        result: Format::F32,
    };
    let shader = candidates(&problem, &Profile::web_default()).pop().expect("a kernel applies");
    assert!(shader.source.contains("max(v0, params.constant0)"), "{}", shader.source);
    assert!(shader.params.contains(&f32::NEG_INFINITY.to_bits()), "{:?}", shader.params);
}

/// On software adapters barriers come last but for the naive kernel; elsewhere they lead.
#[test]
fn the_best_guess_suits_the_adapter() {
    let first =
        |case: &Case, profile: &Profile| candidates(&problem(case, Format::F32, Format::F32), profile)[0].kernel;
    let (software, card) = (Profile::lavapipe(), Profile::desktop());
    let mut chosen = BTreeSet::new();
    for case in all_cases() {
        if case.op.takes_epilogue() || case.op.name() == "attention" {
            assert!(first(&case, &software).contains("_register"), "{case:?}");
            chosen.insert(first(&case, &card));
        }
    }
    let wanted = [
        "attention_workgroup",
        "conv2d_workgroup_32x32",
        "conv2d_workgroup_64x64",
        "group_norm_workgroup",
        "layer_norm_subgroup",
        "matmul_reduce",
        "matmul_workgroup_128x64",
        "matmul_workgroup_32x32",
        "rms_norm_subgroup",
    ];
    assert_eq!(chosen, wanted.into());
}

/// Modules have nothing left to specialise, so they go to the back ends as they do in wgpu.
#[test]
fn every_variant_translates_for_every_driver() {
    let mut seen = HashSet::new();
    for composed in COMPOSED.iter().filter(|composed| seen.insert(composed.text)) {
        let (module, info) = (&MODULES[composed.text], validate(composed));
        let label = &composed.label;

        let options = back::spv::Options { lang_version: (1, 3), ..back::spv::Options::default() };
        back::spv::write_vec(module, &info, &options, None).unwrap_or_else(|e| panic!("{label}: SPIR-V: {e}"));

        // Its driver has neither extensions nor subgroups.
        if !composed.shader.source.contains("enable ") && !composed.shader.source.contains("subgroupAdd") {
            glsl(module, &info, label);
        }

        let options = back::msl::Options { fake_missing_bindings: true, lang_version: (2, 4), ..Default::default() };
        back::msl::write_string(module, &info, &options, &back::msl::PipelineOptions::default())
            .unwrap_or_else(|e| panic!("{label}: Metal: {e}"));

        // Direct3D has no such matrices.
        if composed.shader.kernel.ends_with("_cooperative") {
            continue;
        }
        let options = back::hlsl::Options {
            shader_model: back::hlsl::ShaderModel::V6_2,
            fake_missing_bindings: true,
            ..Default::default()
        };
        let mut text = String::new();
        back::hlsl::Writer::new(&mut text, &options, &back::hlsl::PipelineOptions::default())
            .write(module, &info, None)
            .unwrap_or_else(|e| panic!("{label}: HLSL: {e}"));
    }
}

/// OpenGL ES 3.1 is the least that runs compute shaders.
fn glsl(module: &naga::Module, info: &ModuleInfo, label: &str) {
    let options = back::glsl::Options {
        version: back::glsl::Version::Embedded { version: 310, is_webgl: false },
        ..Default::default()
    };
    let pipeline = back::glsl::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: "main".into(),
        multiview: None,
    };
    let mut text = String::new();
    back::glsl::Writer::new(&mut text, module, info, &options, &pipeline, naga::proc::BoundsCheckPolicies::default())
        .and_then(|mut writer| writer.write())
        .unwrap_or_else(|e| panic!("{label}: GLSL: {e}"));
}
