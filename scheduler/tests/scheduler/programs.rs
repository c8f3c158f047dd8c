//! Properties that hold for every program, so that drivers can rely on them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use proptest::prelude::*;
use scheduler::{
    Ask, Draw, Field, Frame, NamedSchedule, Op, Outcome, Program, Reg, Request, SAMPLERS, SCHEDULES, Schedule,
    SchedulerConfig, Settings, Stepper, Steps, TimestepMap, run, sampler, sigmas,
};

/// Registers are written before they are read, no op writes what it reads, and steps and draws are counted from 0.
fn check(program: &Program) {
    let mut written: HashSet<Reg> = HashSet::from([program.input()]);
    let (mut steps, mut draws) = (0, 0);
    for op in program.ops() {
        for source in op.sources() {
            assert!(written.contains(&source), "{op:?} reads a register that was never written:\n{program}");
            assert_ne!(Some(source), op.dst(), "{op:?} writes what it reads:\n{program}");
        }
        match op {
            Op::Step { index, .. } => {
                assert_eq!(*index, steps, "{program}");
                steps += 1;
            }
            Op::Noise { draw, between, .. } => {
                assert_eq!(*draw, draws, "{program}");
                assert!(between.is_none_or(|(from, to)| from > to), "{op:?}");
                draws += 1;
            }
            Op::Combine { terms, .. } => assert!(terms.iter().all(|(c, _)| c.is_finite()), "{op:?}"),
            Op::Denoise { sigma, timestep, .. } => {
                assert!(*sigma > 0.0 && sigma.is_finite() && timestep.is_finite(), "{op:?}");
            }
            Op::Constrain { sigma, .. } => assert!(*sigma >= 0.0 && sigma.is_finite(), "{op:?}"),
            Op::Unguided { .. } | Op::Clip { .. } | Op::Measure { .. } => {}
        }
        written.extend(op.dst());
    }
    assert!(written.contains(&program.output()));
    assert!(written.iter().all(|reg| reg.0 < program.registers()));
    assert!(program.final_scale() > 0.0);
}

/// Runs on a model whose denoised image is always 0.5: nothing may become infinite, and where the last sigma is 0 the result
/// is that image.
fn check_run(program: &Program, schedule: &Schedule, settings: &Settings) {
    // LCM mixes a share of x into its image; PNDM extrapolates velocities, and may read the same x at another timestep.
    let exact = settings.timestep_scaling.is_none()
        && !settings.velocity
        && settings.runge_kutta.iter().all(|(landing, told)| landing == told);
    let mut denoiser = |_: &[f64], _: f64, _: f64, out: &mut [f64]| -> Result<(), ()> {
        out.fill(0.5);
        Ok(())
    };
    let noise = |draw: Draw, out: &mut [f64]| out.fill(if draw.index.is_multiple_of(2) { 1.0 } else { -1.0 });
    let x = [1.7 * schedule.init_noise_sigma];
    let outcome = run(program, &x, &mut denoiser, noise, |event| {
        assert!(event.x[0].is_finite() && (!exact || event.denoised[0] == 0.5));
        ControlFlow::Continue(())
    });
    let Ok(Outcome::Finished(result)) = outcome else { panic!("{outcome:?}") };
    let inverts = sampler(program.name()).expect("in the list").inverts;
    if exact && !inverts && schedule.sigmas.last() == Some(&0.0) {
        // x is as large as the first sigma at the start and is rounded there. Extrapolation over steps of very
        // different length (lms over linear_quadratic) multiplies this rounding error by hundreds of thousands.
        let rounding = 1e-9 + 1e-10 * schedule.sigmas[0];
        assert!((result[0] - 0.5).abs() < rounding, "{result:?}\n{program}");
    } else {
        assert!(result[0].is_finite());
    }
}

/// Classes of every family, with what a model of theirs predicts, where they have a field for it.
const CLASSES: [(&str, Option<&str>); 16] = [
    ("EulerDiscreteScheduler", Some("epsilon")),
    ("PNDMScheduler", Some("epsilon")),
    ("PNDMScheduler", Some("v_prediction")),
    ("DDPMScheduler", Some("sample")),
    ("DDIMScheduler", Some("v_prediction")),
    ("DDIMInverseScheduler", Some("epsilon")),
    ("RePaintScheduler", Some("epsilon")),
    ("DPMSolverMultistepScheduler", Some("epsilon")),
    ("UniPCMultistepScheduler", Some("flow_prediction")),
    ("LCMScheduler", Some("epsilon")),
    ("TCDScheduler", Some("epsilon")),
    ("EDMEulerScheduler", None),
    ("FlowMatchEulerDiscreteScheduler", None),
    ("FlowMatchLCMScheduler", None),
    ("CMStochasticIterativeScheduler", None),
    ("ScoreSdeVeScheduler", None),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Any configuration, sampler, number of steps and named schedule gives a sound program or an error, never a NaN.
    #[test]
    fn every_configuration_gives_a_sound_program(
        class in 0..CLASSES.len(),
        index in 0..SAMPLERS.len(),
        named in proptest::option::of(0..SCHEDULES.len()),
        count in prop_oneof![1..60_usize, 1..=1000_usize],
        spacing in 0..3_usize,
        beta_schedule in 0..3_usize,
        zero_snr in any::<bool>(),
        steps_offset in 0..2,
        eta in proptest::option::of(0.0..1.0_f64),
    ) {
        let (class, prediction) = CLASSES[class];
        let text = |s: &str| Field::Text(s.to_owned());
        let mut fields = vec![("_class_name".to_owned(), text(class))];
        if let Some(prediction) = prediction {
            fields.push(("prediction_type".to_owned(), text(prediction)));
            fields.push(("timestep_spacing".to_owned(), text(["linspace", "leading", "trailing"][spacing])));
            fields.push(("beta_schedule".to_owned(), text(["linear", "scaled_linear", "squaredcos_cap_v2"][beta_schedule])));
            fields.push(("rescale_betas_zero_snr".to_owned(), Field::Bool(zero_snr)));
            fields.push(("steps_offset".to_owned(), Field::Number(f64::from(steps_offset))));
        }
        fields.push(("use_flow_sigmas".to_owned(), Field::Bool(prediction == Some("flow_prediction"))));
        let config = SchedulerConfig::new(fields).unwrap();
        let schedule: Option<NamedSchedule> = named.map(|i| SCHEDULES[i].0);
        let request = Request { sampler: Some(SAMPLERS[index]), schedule, eta, ..Request::steps(count) };
        match config.plan(&request) {
            Ok(sampling) => {
                let sigmas = &sampling.schedule.sigmas;
                prop_assert!(sigmas.iter().all(|s| s.is_finite() && *s >= 0.0), "{sigmas:?}");
                prop_assert!(sigmas.windows(2).all(|pair| pair[0] >= pair[1]), "{sigmas:?}");
                let program = sampling.program();
                check(&program);
                check_run(&program, &sampling.schedule, &sampling.settings);
                // The tail of an image-to-image run is a program too.
                if let Ok(tail) = sampling.schedule.for_strength(0.6) {
                    check(&sampling.sampler.program(&tail, &sampling.settings));
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty() && !error.to_string().contains('\n')),
        }
    }

    /// Sigmas without a configuration, in both frames.
    #[test]
    fn every_sampler_over_its_own_sigmas(
        index in 0..SAMPLERS.len(),
        n in 1..80_usize,
        low in 1e-3..0.5_f64,
        ends_at_zero in any::<bool>(),
        flow in any::<bool>(),
        solver_order in 1..4_usize,
        constrained in any::<bool>(),
        repeated in proptest::collection::vec(0..80_usize, 0..3),
    ) {
        let high = if flow { 1.0 } else { 80.0 };
        let mut sigmas = sigmas::karras(n, low, high, 7.0).unwrap();
        if !ends_at_zero && n > 1 {
            sigmas.pop();
        }
        // Steps of length 0, also at pure noise.
        for at in repeated {
            // Not the last entry, which ends the run.
            let at = at % (sigmas.len() - 1);
            sigmas.insert(at, sigmas[at]);
        }
        let frame = if flow { Frame::Flow } else { Frame::VarianceExploding };
        let schedule = Schedule::new(sigmas, frame, TimestepMap::QuarterLog).unwrap();
        let settings = Settings { solver_order, constrained, ..SAMPLERS[index].settings() };
        let program = SAMPLERS[index].program(&schedule, &settings);
        check(&program);
        check_run(&program, &schedule, &settings);
    }
}

/// The list says which samplers can be told their share of noise.
#[test]
fn eta_changes_the_samplers_that_have_one() {
    let schedule =
        Schedule::new(vec![0.9, 0.7, 0.4, 0.2, 0.0], Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
    for sampler in SAMPLERS {
        // tcd's share of noise is in its schedule.
        if sampler.is_adaptive() || sampler.name == "tcd" {
            continue;
        }
        let program = |eta| sampler.program(&schedule, &Settings { eta, ..sampler.settings() }).to_string();
        assert_eq!(program(0.0) != program(0.5), sampler.eta.is_some(), "{}", sampler.name);
    }
    let config =
        SchedulerConfig::new([("_class_name".to_owned(), Field::Text("EDMEulerScheduler".to_owned()))]).unwrap();
    let wanted = Request { sampler: scheduler::sampler("er_sde").ok(), eta: Some(0.5), ..Request::steps(3) };
    assert!(config.plan(&wanted).unwrap_err().to_string().contains("er_sde has no eta"));
}

/// The list says which samplers hold to what is known, and they do so in no other run.
#[test]
fn constraints_are_asked_for_by_the_samplers_that_have_them() {
    let sigmas = vec![0.9, 0.7, 0.4, 0.2, 0.0];
    for frame in [Frame::VarianceExploding, Frame::Flow] {
        let schedule = Schedule::new(sigmas.clone(), frame, TimestepMap::QuarterLog).unwrap();
        for sampler in SAMPLERS {
            for constrained in [false, true] {
                let settings = Settings { constrained, ..sampler.settings() };
                let mut stepper = Stepper::new(sampler.program(&schedule, &settings), &[0.3, -0.2]);
                let mut levels = Vec::new();
                loop {
                    match stepper.ask() {
                        Ask::Denoise { out, .. } => out.fill(0.5),
                        Ask::Unguided { out, .. } => out.fill(0.5),
                        Ask::Noise { out, .. } => out.fill(1.0),
                        Ask::Constrain { x, sigma, out, .. } => {
                            levels.push(sigma);
                            out.copy_from_slice(x);
                        }
                        Ask::Step(_) => {}
                        Ask::Done => break,
                    }
                    stepper.advance();
                }
                // At the level of every step but the first, and at the end.
                let expected = constrained && sampler.constrains;
                let all = sigmas[1..].iter().all(|sigma| levels.contains(sigma)) && levels.last() == Some(&0.0);
                assert!(if expected { all } else { levels.is_empty() }, "{} {frame:?}: {levels:?}", sampler.name);
            }
        }
    }
}

#[test]
fn registers_stay_few() {
    let schedule =
        Schedule::new(sigmas::karras(50, 0.01, 80.0, 7.0).unwrap(), Frame::VarianceExploding, TimestepMap::QuarterLog)
            .unwrap();
    for sampler in SAMPLERS.iter().filter(|sampler| !sampler.is_adaptive()) {
        let program = sampler.program(&schedule, &sampler.settings());
        let order = sampler.order as usize;
        let unguided = usize::from(program.wants_unguided());
        assert!(program.registers() <= 4 + order + unguided, "{} needs {}", sampler.name, program.registers());
    }
}

#[test]
fn a_handler_can_stop_a_run() {
    let schedule = Schedule::new(vec![3.0, 2.0, 1.0, 0.0], Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
    let program = scheduler::sampler("euler").unwrap().program(&schedule, &Settings::default());
    let mut calls = 0;
    let mut denoiser = |_: &[f32], _: f64, _: f64, out: &mut [f32]| -> Result<(), ()> {
        calls += 1;
        out.fill(0.0);
        Ok(())
    };
    let stop_at_1 = |event: scheduler::Event<'_, f32>| {
        if event.index == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = run(&program, &[1.0], &mut denoiser, |_, _| {}, stop_at_1);
    assert_eq!(outcome, Ok(Outcome::Stopped { index: 1 }));
    assert_eq!(calls, 2);
}

/// The printed table of every sampler, over three steps: change it knowingly, with `PRINT=1 cargo test printed -- --nocapture`.
#[test]
fn printed_programs() {
    let schedule = Schedule::new(vec![8.0, 4.0, 1.0, 0.0], Frame::VarianceExploding, TimestepMap::QuarterLog).unwrap();
    let text: Vec<String> =
        SAMPLERS.iter().map(|sampler| sampler.program(&schedule, &sampler.settings()).to_string()).collect();
    let text = text.join("\n");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/programs.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    for (ours, theirs) in text.lines().zip(expected.lines()) {
        assert_eq!(ours, theirs, "run with UPDATE_GOLDENS=1 if the change is meant");
    }
    assert_eq!(text.lines().count(), expected.lines().count());
}

#[test]
fn bad_requests_are_errors_of_one_sentence() {
    let config = |fields: &[(&str, Field)]| {
        SchedulerConfig::new(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())))
    };
    let text = |s: &str| Field::Text(s.to_owned());
    let euler = ("_class_name", text("EulerDiscreteScheduler"));
    let make = |fields: &[(&str, Field)], steps: Steps| {
        config(fields).and_then(|c| c.plan(&Request { steps, ..Request::steps(0) })).unwrap_err().to_string()
    };
    let five = || Steps::Count(5);
    let cases = [
        (make(&[], five()), "no _class_name"),
        (make(&[("_class_name", text("VQDiffusionScheduler"))], five()), "VQDiffusionScheduler is not supported"),
        (make(&[euler.clone(), ("beta_shedule", text("linear"))], five()), "beta_shedule of unknown meaning"),
        (
            make(&[euler.clone(), ("beta_schedule", text("cubic"))], five()),
            "beta_schedule = \"cubic\" is not supported",
        ),
        (make(&[euler.clone(), ("beta_start", text("low"))], five()), "beta_start should be a number"),
        (make(&[euler.clone(), ("prediction_type", text("flow_prediction"))], five()), "prediction_type"),
        (make(&[euler.clone(), ("beta_end", Field::Number(2.0))], five()), "beta of"),
        (make(&[euler.clone(), ("predict_epsilon", Field::Bool(false))], five()), "prediction_type = sample"),
        (make(std::slice::from_ref(&euler), Steps::Count(0)), "at least 1"),
        (make(std::slice::from_ref(&euler), Steps::Timesteps(vec![])), "at least 1"),
        (make(std::slice::from_ref(&euler), Steps::Timesteps(vec![1000.0])), "between 0 and 999"),
        (make(std::slice::from_ref(&euler), Steps::Timesteps(vec![10.0, 500.0])), "increase"),
        (make(std::slice::from_ref(&euler), Steps::Sigmas(vec![1.0, f64::NAN])), "finite"),
        (make(&[("_class_name", text("DDIMScheduler"))], Steps::Count(1001)), "more than the 1000"),
        (
            make(
                &[("_class_name", text("FlowMatchEulerDiscreteScheduler")), ("invert_sigmas", Field::Bool(true))],
                five(),
            ),
            "invert_sigmas",
        ),
        (
            make(
                &[
                    ("_class_name", text("FlowMatchEulerDiscreteScheduler")),
                    ("use_dynamic_shifting", Field::Bool(true)),
                ],
                five(),
            ),
            "image tokens",
        ),
        (
            make(
                &[("_class_name", text("DPMSolverMultistepScheduler")), ("algorithm_type", text("dpmsolver"))],
                five(),
            ),
            "algorithm_type",
        ),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "\"{error}\" does not say \"{expected}\"");
        assert!(!error.contains('\n') && error.len() < 200, "{error}");
    }
    // Fields beginning with an underscore, and infinities as Python writes them, are no errors.
    let fields = [
        ("_class_name", text("DPMSolverMultistepScheduler")),
        ("_diffusers_version", text("0.42.1")),
        ("lambda_min_clipped", text("-Infinity")),
    ];
    assert!(config(&fields).unwrap().plan(&Request::steps(5)).is_ok());
}

/// The README's table equals the list.
#[test]
fn readme_lists_every_sampler() {
    let mut table = "| name | | order | noise | evaluations per step | diffusers | ComfyUI | AUTOMATIC1111 | stable-diffusion.cpp | paper \
        |\n|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for s in SAMPLERS {
        let noise = if s.stochastic { "yes" } else { "" };
        let names = s.aliases.by_tool().map(|(_, names)| names.join(", ")).join(" | ");
        let (name, summary, order, evaluations, paper) = (s.name, s.summary, s.order, s.evaluations, cited(s.paper));
        table += &format!("| `{name}` | {summary} | {order} | {noise} | {evaluations} | {names} | {paper} |\n");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let start = readme.find("readme -->\n").unwrap() + "readme -->\n".len();
    let end = readme.find("<!-- end -->").unwrap();
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, format!("{}\n{table}\n{}", &readme[..start], &readme[end..])).unwrap();
    } else {
        assert_eq!(readme[start..end].trim(), table.trim(), "run with UPDATE_GOLDENS=1");
    }
}

/// "Authors year, Title, arXiv:number" as a link to the paper that shows the authors.
fn cited(paper: &str) -> String {
    let authors = paper.split(',').next().unwrap_or(paper);
    match paper.split_once("arXiv:") {
        Some((_, number)) => format!("[{authors}](https://arxiv.org/abs/{number})"),
        None => paper.to_owned(),
    }
}

/// The schedules of other tools, by their definitions over the training table.
#[test]
fn named_schedules() {
    let fields = [
        ("_class_name", Field::Text("EulerDiscreteScheduler".to_owned())),
        ("beta_schedule", Field::Text("scaled_linear".to_owned())),
        ("beta_start", Field::Number(0.00085)),
        ("beta_end", Field::Number(0.012)),
    ];
    let config = SchedulerConfig::new(fields.map(|(name, value)| (name.to_owned(), value))).unwrap();
    let plan = |name: &str, n: usize| {
        let schedule = Some(name.parse().unwrap());
        config.plan(&Request { schedule, ..Request::steps(n) }).unwrap().schedule
    };
    // Stable Diffusion's range of sigmas.
    for (name, _) in SCHEDULES {
        let schedule = plan(name.name(), 10);
        let largest = if *name == NamedSchedule::Vp { 153.0 } else { 14.616 };
        assert!(schedule.sigmas[0] > 8.0 && schedule.sigmas[0] < largest, "{}: {:?}", name.name(), schedule.sigmas);
        assert_eq!(schedule.sigmas.last(), Some(&0.0), "{}", name.name());
    }
    let timesteps = |name: &str, n: usize| plan(name, n).timesteps;
    let near = |ours: Vec<f64>, theirs: &[f64]| {
        let close = ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(close, "{ours:?} {theirs:?}");
    };
    near(plan("ays", 10).sigmas, &[14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]);
    // The published timesteps of those sigmas, which were rounded to whole numbers.
    let published = [999.0, 850.0, 736.0, 645.0, 545.0, 455.0, 343.0, 233.0, 124.0, 24.0];
    assert!(timesteps("ays", 10).iter().zip(published).all(|(a, b)| (a - b).abs() < 3.0), "{:?}", timesteps("ays", 10));
    near(timesteps("normal", 4), &[999.0, 666.0, 333.0, 0.0]);
    near(timesteps("sgm_uniform", 3), &[999.0, 666.0, 333.0]);
    near(timesteps("simple", 4), &[999.0, 749.0, 499.0, 249.0]);
    near(timesteps("ddim_uniform", 4), &[751.0, 501.0, 251.0, 1.0]);
    near(timesteps("trailing", 4), &[999.0, 749.0, 499.0, 249.0]);
    near(timesteps("leading", 4), &[750.0, 500.0, 250.0, 0.0]);
    assert!("karas".parse::<NamedSchedule>().unwrap_err().to_string().contains("did you mean karras"));
}
