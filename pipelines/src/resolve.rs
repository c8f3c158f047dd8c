//! From a request to a job: everything that a request leaves open is decided here, once.

use crate::conditioning::{Layout, SampleShape};
use crate::denoiser::has_kept;
use crate::edit::Method;
use crate::error::PipelineError;
use crate::job::{Job, Settings, Text};
use crate::networks::Guidance;
use crate::parts::{Prompt, Size, TextEncoders};
use crate::picture::tiles::Grid;
use crate::pipeline::Shared;
use crate::request::{Request, StartingNoise};
use crate::reuse::Part;
use crate::step_cache::StepCache;
use crate::tasks::{Prepared, Range, Stepping, Wanted};
use crate::warning::warnings;
use scheduler::{Frame, Limit, NamedSchedule, Sampling, Steps, TimestepMap};

pub(crate) fn resolve(shared: &Shared, request: &Request) -> Result<Job, PipelineError> {
    let model = &shared.model;
    let kind = request.task.kind();
    let (own, steps) = shared.defaults(&request.task);
    let size_was_asked = request.width.is_some() || request.height.is_some();
    let size = kind.whole_size(model).filter(|_| size_was_asked).unwrap_or(own.size);
    let mut settings = Settings {
        prompt: request.prompt.clone(),
        negative_prompt: (request.negative_prompt.clone())
            .unwrap_or_else(|| model.defaults().negative_prompt.clone().unwrap_or_default()),
        width: request.width.unwrap_or(size.width),
        height: request.height.unwrap_or(size.height),
        steps: request.steps.clone().unwrap_or(steps),
        schedule: request.schedule.or(request.sampler.and_then(|sampler| sampler.schedule)),
        eta: request.eta,
        guidance_scale: request.guidance_scale.unwrap_or(own.guidance_scale),
        guidance_interval: request.guidance_interval,
        step_cache: request.step_cache.map(StepCache::check).transpose()?,
        seed: request.seed,
        rng: request.rng,
        clip_skip: request.clip_skip,
        prompt_syntax: request.prompt_syntax,
        class_label: None,
        strength: kind.strength(&model.network),
        noise_level: None,
        sigma: None,
        method: None,
    };
    let stepping = stepping(shared, request)?;
    settings.method = kind.method(&stepping)?;
    let size = Size { height: settings.height, width: settings.width };
    let bin = model.bin(size).filter(|_| kind.may_bin());
    let tile = kind.tile(model, size);
    let shape = match tile {
        Some(tile) => model.tiled_shape(size, tile)?,
        None => model.sample_shape(size, bin)?,
    };
    let prepared = kind.prepare(&Wanted { model, size, size_was_asked, shape, method: settings.method })?;
    settings.noise_level = prepared.noise_level();
    settings.sigma = prepared.sigma();
    check_guidance(settings.guidance_scale)?;
    settings.class_label = class_label(shared, request, &settings)?;
    let sampling = sampling(shared, request, &mut settings, (&stepping, prepared.as_ref()), bin.unwrap_or(size))?;
    let (sampling, clips) = constrained(sampling, settings.method);
    let program = sampling.program();
    check_noise(&request.noise, shape.numel())?;

    // CFG++ needs the unguided image, however little guidance there is. A network that takes guidance as an input, or knows none, has no
    // such image: CFG++ is then the plain sampler.
    let guided = shared.guides() && (settings.guidance_scale > 1.0 || program.wants_unguided());
    let text = text(model.text.as_ref(), &settings, guided)?;
    let tokens = text.as_ref().zip(model.text.as_ref());
    let tokens = tokens.map_or(0, |(text, encoders)| text.prompts[0].chunks * encoders.max_tokens());
    let per = model.pixels_per_element();
    let part = tile.map_or(shape, |tile| SampleShape { height: tile.height / per, width: tile.width / per, ..shape });
    let grid = (part != shape).then(|| Grid::of(shape, part, model.network.side_multiple));
    let layout = Layout {
        shape: part,
        samples: 1,
        guided,
        conditions: model.condition_shapes(tokens),
        concatenated: model.network.concatenated.channels(),
        part: Part::Whole,
    };
    let dropped = text.as_ref().map_or(0, |text| text.dropped);
    let warnings = warnings(shared, request, &settings, (&layout, bin, dropped))?;
    let noise = request.noise.clone();
    let job = Job { settings, sampling, program, noise, shape, grid, layout, clips, bin, text, prepared, warnings };
    check_step_cache(shared, &job)?;
    Ok(job)
}

/// Whether the network has the seams that the step cache needs.
fn check_step_cache(shared: &Shared, job: &Job) -> Result<(), PipelineError> {
    let Some(cache) = job.settings.step_cache else { return Ok(()) };
    let refuse = |why: &str| Err(PipelineError::Request(format!("the step cache {cache} is not possible: {why}")));
    if job.grid.is_some() {
        return refuse("a picture this large is denoised in parts");
    }
    for part in cache.parts() {
        if part.kept().is_some() && !has_kept(&shared.graph(&job.layout.of(job.layout.guided, *part))?) {
            return refuse(match cache {
                StepCache::FirstBlock { .. } => "this model is no transformer of several blocks",
                StepCache::TGate { .. } => "this model attends to no text",
                StepCache::Deep { .. } => "this model is no UNet whose levels it could skip",
            });
        }
    }
    Ok(())
}

/// How a run steps, as far as the request and the model say it before the task has its say.
fn stepping(shared: &Shared, request: &Request) -> Result<Stepping, PipelineError> {
    let asked = request.sampler.map(|named| named.sampler);
    let model = &shared.model;
    Stepping::of(shared.scheduler(), asked, &model.network, model.autoencoder.is_some(), model.defaults())
}

/// What a method asks of the sampler: to let it hold x where the sampler goes along with that, and to leave the clipping of denoised images to
/// what replaces a part of them, which comes after it. The largest magnitude that is left there.
fn constrained(mut sampling: Sampling, method: Option<Method>) -> (Sampling, Option<f64>) {
    match method {
        Some(Method::RePaint | Method::PredictorCorrector) => sampling.settings.constrained = true,
        Some(Method::Replace) => {
            if let Some(Limit::Clamp { range }) = sampling.settings.limit {
                sampling.settings.limit = None;
                return (sampling, Some(range));
            }
        }
        Some(Method::Blend) | None => {}
    }
    (sampling, None)
}

/// How this checkpoint, sampler and schedule step, for a picture made at this size. Where the task has noise levels of its own, the settings say
/// so afterwards.
fn sampling(
    shared: &Shared,
    request: &Request,
    settings: &mut Settings,
    (stepping, prepared): (&Stepping, &dyn Prepared),
    size: Size,
) -> Result<Sampling, PipelineError> {
    let kind = request.task.kind();
    let asked = request.sampler.map(|named| named.sampler);
    if let Some(sampler) = asked.filter(|sampler| sampler.inverts != kind.inverts()) {
        let [from, to] =
            if sampler.inverts { ["an image to noise", "an image"] } else { ["noise to an image", "noise"] };
        let reason = format!("the sampler {} leads from {from}, not to {to}", sampler.name);
        return Err(PipelineError::Request(reason));
    }
    if kind.inverts() && stepping.is_consistency() {
        let reason =
            "a consistency model jumps from noise to pictures: there is no path back from a picture to its noise";
        return Err(PipelineError::Request(reason.into()));
    }
    let sampler = match asked {
        None if kind.inverts() => Some(scheduler::sampler("heun_inverse")?),
        asked => asked,
    };
    let own = settings.method.and_then(Method::sampler).map(scheduler::sampler).transpose()?;
    // Explicit timesteps are a schedule, and leave no room for the configuration's own (karras, say). A consistency model has but one.
    let several = shared.scheduler().class() != "CMStochasticIterativeScheduler";
    let explicit = (matches!(settings.steps, Steps::Timesteps(_)) && several).then_some(NamedSchedule::Normal);
    let model = &shared.model;
    let mut wanted = scheduler::Request {
        steps: settings.steps.clone(),
        sampler: own.or(sampler),
        schedule: settings.schedule.or(explicit),
        eta: settings.eta,
        image_seq_len: Some((size.height / model.side()) * (size.width / model.side())),
    };
    if let Steps::Count(1..=MOST_STEPS) = wanted.steps {
        let count = if let Some(Steps::Count(count)) = request.steps { Some(count) } else { None };
        // Whether it has levels does not depend on the range.
        let has_levels = prepared.levels(stepping, &Range { largest: 1.0, smallest: 1.0 }, count).is_some();
        if let Some(schedule) = wanted.schedule.filter(|_| has_levels) {
            let name = schedule.name();
            let message = format!("the schedule {name} is not possible: this task has noise levels of its own");
            return Err(PipelineError::Request(message));
        }
        if has_levels {
            let range = range(shared, &wanted)?;
            if let Some(sigmas) = prepared.levels(stepping, &range, count) {
                settings.steps = Steps::Sigmas(sigmas);
                wanted.steps = settings.steps.clone();
            }
        }
    }
    let Some(strength) = settings.strength else { return Ok(shared.scheduler().plan(&wanted)?) };
    let spreads = model.network.guidance == Guidance::Embedded && kind.spreads_steps();
    Ok(shared.scheduler().plan_for_strength(&wanted, strength, spreads)?)
}

/// More steps than a task would spread its levels over: what the scheduler says of them comes first.
const MOST_STEPS: usize = 100_000;

/// The ends of the model's own schedule.
fn range(shared: &Shared, wanted: &scheduler::Request) -> Result<Range, PipelineError> {
    // With few steps some schedules leave out one end or the other; models that were distilled to a list of timesteps take no more than those.
    let plan = |count| shared.scheduler().plan(&scheduler::Request { steps: Steps::Count(count), ..wanted.clone() });
    let own = [50, 25, 10].into_iter().find_map(|count| plan(count).ok()).map_or_else(|| plan(1), Ok)?;
    if own.schedule.frame == Frame::Flow {
        let message = "this task has noise levels of its own, which a model of flow matching does not take";
        return Err(PipelineError::Request(message.into()));
    }
    let levels = own.schedule.sigmas.iter().copied().filter(|sigma| *sigma > 0.0);
    // Down to halfway between the table's first two timesteps: a latent consistency model takes the first for no noise at all.
    let table = if let TimestepMap::Discrete { log_sigmas } = &own.schedule.map { log_sigmas.get(..2) } else { None };
    let levels = levels.chain(table.map(|logs| (0.5 * (logs[0] + logs[1])).exp()));
    let (smallest, largest) = levels.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), s| (low.min(s), high.max(s)));
    Ok(Range { largest, smallest })
}

/// The class to draw, of a model that has classes; refuses what the model cannot be asked for.
fn class_label(shared: &Shared, request: &Request, settings: &Settings) -> Result<Option<usize>, PipelineError> {
    let refuse = |message: String| Err(PipelineError::Request(message));
    let network = &shared.model.network;
    let reads = network.text.is_some();
    let asked = !settings.prompt.is_empty() || !settings.negative_prompt.is_empty();
    if asked && !reads {
        return refuse("this model reads no text: leave the prompt out".into());
    }
    if let Some(syntax) = settings.prompt_syntax.filter(|_| !reads) {
        let syntax = syntax.name();
        return refuse(format!("the syntax {syntax} is not possible: this model reads no text"));
    }
    if network.guidance == Guidance::Embedded && !settings.negative_prompt.is_empty() {
        return refuse(
            "a negative prompt is not possible: this model takes guidance as an input and reads no second prompt"
                .into(),
        );
    }
    if network.guidance == Guidance::None && settings.guidance_scale > 1.0 {
        let scale = settings.guidance_scale;
        return refuse(format!("guidance {scale} is not possible: this model was not trained for it, so leave it out"));
    }
    if settings.guidance_interval.is_some() && network.guidance != Guidance::ClassifierFree {
        let why = match network.guidance {
            Guidance::Embedded => "takes guidance as an input, and predicts once anyway",
            _ => "was not trained for guidance",
        };
        return refuse(format!("a guidance interval is not possible: this model {why}"));
    }
    let classes = network.classes.map(|classes| classes.count);
    match (classes, request.class_label) {
        (None, None) => Ok(None),
        (None, Some(label)) => refuse(format!("class {label} is not possible: this model has no classes")),
        (Some(classes), Some(label)) if label >= classes => {
            refuse(format!("class {label} is not possible: this model has classes 0 to {}", classes - 1))
        }
        (Some(_), Some(label)) => Ok(Some(label)),
        (Some(classes), None) => Ok(Some(label_of_seed(settings.seed, classes))),
    }
}

/// The prompts, cut into what the text encoders read at once; under guidance the negative one first.
fn text(encoders: Option<&TextEncoders>, settings: &Settings, guided: bool) -> Result<Option<Text>, PipelineError> {
    let (clip_skip, syntax) = (settings.clip_skip, settings.prompt_syntax);
    let Some(encoders) = encoders else {
        if clip_skip > 0 {
            let message = format!("clip_skip = {clip_skip} is not possible: this model reads no text");
            return Err(PipelineError::Request(message));
        }
        return Ok(None);
    };
    encoders.check_skip(clip_skip)?;
    let (positive, mut dropped) = encoders.tokenize(&settings.prompt, syntax)?;
    let negative = guided.then(|| encoders.tokenize(&settings.negative_prompt, syntax)).transpose()?;
    // Both sides of guidance are one batch.
    let chunks = negative.iter().map(|(prompt, _)| prompt.chunks()).fold(positive.chunks(), usize::max);
    let prompt = |tokenized, negative| Prompt { tokenized, chunks, clip_skip, negative };
    let mut prompts = Vec::new();
    if let Some((negative, more)) = negative {
        prompts.push(prompt(negative, true));
        dropped += more;
    }
    prompts.push(prompt(positive, false));
    Ok(Some(Text { prompts, dropped }))
}

/// Guidance is an `f32` on every device, and must be a number there.
fn check_guidance(scale: f64) -> Result<(), PipelineError> {
    if scale.is_finite() && scale.abs() <= f64::from(f32::MAX) {
        return Ok(());
    }
    Err(PipelineError::Request(format!("guidance must be a number of single precision, not {scale}")))
}

fn check_noise(noise: &StartingNoise, elements: usize) -> Result<(), PipelineError> {
    let message = match noise {
        StartingNoise::Given(noise) if noise.len() != elements => {
            format!("the noise to start with has {} numbers, and the sample has {elements}", noise.len())
        }
        StartingNoise::Given(noise) if !noise.iter().all(|v| v.is_finite()) => {
            "the noise to start with has values that are not finite numbers".into()
        }
        StartingNoise::Slerp { share, .. } if !share.is_finite() => {
            format!("the share of another seed's noise must be a number, not {share}")
        }
        _ => return Ok(()),
    };
    Err(PipelineError::Request(message))
}

/// A class that the seed chooses, each as often as any: SplitMix64's first number.
fn label_of_seed(seed: u64, classes: usize) -> usize {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let scaled = u128::from(z ^ (z >> 31)) * classes as u128;
    usize::try_from(scaled >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_choose_every_class_about_equally_often() {
        let mut counts = [0; 10];
        (0..10_000).for_each(|seed| counts[label_of_seed(seed, 10)] += 1);
        // Five standard deviations of a binomial distribution.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(label_of_seed(u64::MAX, 1), 0);
    }
}
