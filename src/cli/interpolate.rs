//! `headwater interpolate`: pictures on the way from one to another.

use super::animation::{self, Format};
use super::error::CliError;
use super::image_args::{ImageArgs, whole};
use super::interrupt::{self, Interrupted};
use super::output::{check_can_make, make_parent, slug, write_folder, write_whole};
use super::pictures::{Files, Pictures as _};
use super::png;
use super::run::{self, Opened};
use super::warnings::warn;
use pipelines::{Invert, Job, Pipeline, Request, RgbImage, StartingNoise, Task, noise};
use scheduler::Steps;
use serde_json::json;
use std::f64::consts::PI;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Make the pictures on the way from one to another: between the noise of two seeds, or between two pictures, which a diffusion model leads back to
/// their noise.
#[derive(Debug, clap::Args)]
#[command(mut_arg("count", |count| count.hide(true)), mut_arg("save_steps", |steps| steps.hide(true)))]
#[command(mut_arg("output", |output| output.help("Animation ending in .gif or .webp, or a new folder for the frames [default: ./{prompt}-A-B.gif]")))]
pub(super) struct Args {
    /// A seed, or a picture
    from: End,

    /// Another; two pictures, or two seeds
    to: End,

    /// What the pictures show, in words with or without quotes
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,

    /// Pictures, both ends among them
    #[arg(long, value_name = "N", default_value_t = 16, allow_negative_numbers = true, value_parser = whole::<2, 10_000>)]
    frames: u32,

    /// Pictures a second, of an animation
    #[arg(long, value_name = "N", default_value_t = 8, allow_negative_numbers = true, value_parser = whole::<1, 100>)]
    fps: u32,

    #[command(flatten)]
    image: ImageArgs,
}

/// Where the way begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Seed(u64),
    Picture(PathBuf),
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Ok(Self::Picture(text.into()));
        }
        text.parse().map(Self::Seed).map_err(|_| "the number is too large for a seed".into())
    }
}

impl End {
    /// As a part of a file's name.
    fn name(&self) -> String {
        match self {
            Self::Seed(seed) => seed.to_string(),
            Self::Picture(path) => run::stem(path),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    check(&args.image)?;
    let output = Output::new(args)?;
    let interrupted = interrupt::install()?;
    let mut flags = args.image.clone();
    if matches!((&args.from, &args.to), (End::Seed(_), End::Seed(_))) && flags.seed.is_some() {
        return Err(CliError::Usage("the two seeds are the ends: leave --seed out".into()));
    }
    let seeds = match (&args.from, &args.to) {
        (End::Seed(from), End::Seed(to)) => Some((*from, *to)),
        (End::Picture(_), End::Picture(_)) => None,
        _ => return Err(CliError::Usage("give two seeds or two pictures, not one of each".into())),
    };
    if seeds.is_none() && flags.model == Path::new(crate::bundled::DEFAULT) {
        // A consistency model has no way back from a picture.
        flags.model = crate::bundled::DIFFUSION.into();
    }
    let prompt = args.words.join(" ");
    let Opened { pipe, prompt, .. } = run::open(&flags, Some(&prompt))?;
    if !pipe.makes_pictures() {
        return Err(CliError::Usage("this model makes latents, not pictures".into()));
    }
    if pipe.takes_prompt() == prompt.is_empty() {
        return Err(CliError::Usage(if prompt.is_empty() {
            "this model needs a PROMPT that says what the pictures show, as in headwater interpolate 3 9 \"a red heart\"".into()
        } else {
            "this model reads no text: leave the prompt out".into()
        }));
    }
    let names = flags.names()?;
    let request = |seed| flags.request(&prompt, seed, names, Task::default());
    let share = |frame: u32| f64::from(frame) / f64::from(args.frames - 1);
    let requests: Vec<Request> = match (seeds, &args.from, &args.to) {
        (Some((from, to)), ..) => {
            let on_the_way =
                |frame| Request { noise: StartingNoise::Slerp { to, share: share(frame) }, ..request(from) };
            (0..args.frames).map(on_the_way).collect()
        }
        (None, End::Picture(from), End::Picture(to)) => {
            let between = Between::new(&pipe, &request(run::seed(&flags)), [from, to], &flags)?;
            if flags.dry_run {
                return super::dry_run::print(&pipe, &between.jobs[0], &[run::seed(&flags); 2], &flags);
            }
            let between = between.inverted(&pipe, &interrupted, &flags)?;
            (0..args.frames).map(|frame| between.request(share(frame))).collect()
        }
        _ => unreachable!("refused above"),
    };
    let jobs = requests.iter().map(|request| Ok(pipe.job(request)?)).collect::<Result<Vec<Job>, CliError>>()?;
    if flags.dry_run {
        return super::dry_run::print(&pipe, &jobs[0], &[from_seed(seeds)], &flags);
    }
    jobs[0].warnings().iter().try_for_each(|warning| warn(flags.is_quiet(), &warning.to_string()))?;
    let mut frames = Vec::with_capacity(jobs.len());
    for jobs in jobs.chunks(flags.batch as usize) {
        let made = run::make(&pipe, jobs, &flags, &interrupted)?;
        frames.extend(made.into_iter().filter_map(|made| made.image));
    }
    let told = json!({
        "version": env!("CARGO_PKG_VERSION"), "command": "interpolate", "model": flags.model.to_string_lossy(),
        "prompt": prompt, "from": args.from.name(), "to": args.to.name(), "frames": args.frames,
        "sampler": jobs[0].sampling().sampler.name, "guidance": jobs[0].settings().guidance_scale,
    });
    output.write(&frames, args, &told)
}

/// For a list of seeds.
fn from_seed(seeds: Option<(u64, u64)>) -> u64 {
    seeds.map_or(0, |(from, _)| from)
}

/// Refuses flags that say nothing here.
fn check(flags: &ImageArgs) -> Result<(), CliError> {
    let unused = [("--count", flags.count > 1), ("--save-steps", flags.save_steps.is_some())];
    match unused.iter().find(|(_, is_set)| *is_set) {
        Some((flag, _)) => {
            Err(CliError::Usage(format!("interpolate takes no {flag}: --frames says how many pictures there are")))
        }
        None => Ok(()),
    }
}

/// Two pictures on their way back to their noise.
struct Between {
    /// What makes the pictures again.
    request: Request,
    jobs: [Job; 2],
}

/// Two pictures, led back to their noise.
struct Inverted {
    request: Request,
    from: Vec<f32>,
    to: Vec<f32>,
}

impl Between {
    fn new(pipe: &Pipeline, request: &Request, pictures: [&Path; 2], flags: &ImageArgs) -> Result<Self, CliError> {
        let [from, to] = pictures.map(|path| Files.picture(path));
        let (from, to) = (from?, to?);
        let stretched = from.width * to.height != from.height * to.width;
        let (width, height) = pipe.fitted_size(from.width, from.height);
        let request = Request {
            width: request.width.or(Some(width)),
            height: request.height.or(Some(height)),
            guidance_scale: request.guidance_scale.or(pipe.defaults().guidance_scale),
            sampler: match request.sampler {
                None => Some("heun".parse().map_err(|error: scheduler::Error| CliError::Failed(error.to_string()))?),
                asked => asked,
            },
            ..request.clone()
        };
        let job = |image: RgbImage| {
            let up =
                Request { task: Invert { image }.into(), sampler: None, guidance_scale: Some(1.0), ..request.clone() };
            pipe.job(&up)
        };
        let jobs = [job(from)?, job(to)?];
        if stretched && !flags.quiet {
            let [from, to] = pictures.map(Path::display);
            note!("note: {to} has another shape than {from}, and is stretched to it");
        }
        // The way back is the same, and then down to no noise at all.
        let steps = match &jobs[0].settings().steps {
            Steps::Sigmas(levels) => Some(Steps::Sigmas(levels.iter().copied().chain([0.0]).collect())),
            _ => request.steps.clone(),
        };
        Ok(Self { request: Request { steps, ..request }, jobs })
    }

    fn inverted(self, pipe: &Pipeline, interrupted: &Interrupted, flags: &ImageArgs) -> Result<Inverted, CliError> {
        if !flags.quiet {
            note!("the noise of both pictures is found first");
        }
        let [from, to] =
            self.jobs.map(|job| Ok::<_, CliError>(run::make(pipe, &[job], flags, interrupted)?.remove(0).sample));
        Ok(Inverted { request: self.request, from: from?, to: to? })
    }
}

impl Inverted {
    /// The picture at this share of the way. Without guidance a path leads back to where it came from, so there is none at the ends; in between
    /// it keeps the pictures sharp.
    fn request(&self, share: f64) -> Request {
        // All are guided, if only by so little, so that they can be made together.
        const HARDLY: f64 = 1.000_01;
        let most = self.request.guidance_scale.unwrap_or(1.0);
        let guidance_scale = if most > 1.0 { HARDLY.max(1.0 + (most - 1.0) * (PI * share).sin()) } else { most };
        let mut between = self.from.clone();
        noise::slerp(&mut between, &self.to, share);
        let noise = StartingNoise::Given(Arc::from(between));
        Request { noise, guidance_scale: Some(guidance_scale), ..self.request.clone() }
    }
}

/// Where the pictures go.
enum Output {
    Animation(Format, PathBuf),
    Folder(PathBuf),
}

impl Output {
    fn new(args: &Args) -> Result<Self, CliError> {
        let own = || {
            let name = format!("{}-{}-{}", slug(&args.words.join(" ")), args.from.name(), args.to.name());
            let numbered = (2_u32..).map(|n| PathBuf::from(format!("{name}-{n}.gif")));
            let mut names = std::iter::once(PathBuf::from(format!("{name}.gif"))).chain(numbered);
            names.find(|path| !path.exists()).unwrap_or_default()
        };
        let path = args.image.output.clone().unwrap_or_else(own);
        check_can_make(path.parent().unwrap_or(Path::new(".")))?;
        if path == Path::new("-") {
            return Err(CliError::Usage(
                "interpolate writes no standard output: name a .gif, a .webp or a folder".into(),
            ));
        }
        if path.is_file() && args.image.output.is_some() && !args.image.force {
            let message =
                format!("--output {} exists already: give another name, or --force to overwrite it", path.display());
            return Err(CliError::Usage(message));
        }
        if let Some(format) = Format::of(&path) {
            return Ok(Self::Animation(format, path));
        }
        if path.extension().is_some() {
            let message =
                format!("--output {} must end in .gif or .webp, or be a folder for the frames", path.display());
            return Err(CliError::Usage(message));
        }
        if path.exists() {
            let message = format!("--output {} exists: name a new folder", path.display());
            return Err(CliError::Usage(message));
        }
        Ok(Self::Folder(path))
    }

    fn write(&self, frames: &[RgbImage], args: &Args, told: &serde_json::Value) -> Result<(), CliError> {
        let path = match self {
            Self::Animation(format, path) => {
                make_parent(path)?;
                let each = Duration::from_secs_f64(1.0 / f64::from(args.fps));
                write_whole(path, &animation::encode(*format, frames, each)?)?;
                path
            }
            Self::Folder(path) => {
                let mut files = Vec::with_capacity(frames.len());
                for (index, frame) in frames.iter().enumerate() {
                    let mut settings = told.clone();
                    settings["frame"] = json!(index);
                    let settings = settings.to_string();
                    files.push((format!("frame-{index:04}.png"), png::encode(frame, &[("headwater", &settings)])?));
                }
                make_parent(path)?;
                write_folder(path, &files)?;
                path
            }
        };
        run::print_line(&if args.image.json {
            let mut object = told.clone();
            object["path"] = json!(path.display().to_string());
            object.to_string()
        } else {
            path.display().to_string()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_seeds_and_the_rest_pictures() {
        assert_eq!("42".parse(), Ok(End::Seed(42)));
        assert_eq!("42.png".parse(), Ok(End::Picture("42.png".into())));
        assert!("99999999999999999999".parse::<End>().is_err());
    }
}
