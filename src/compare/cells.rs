//! The grid: one cell for every combination of the axes' values.

use super::axes::{Axis, AxisName, Value};
use super::record::{CellSettings, Path};
use pipelines::{Job, Pipeline, PipelineError, Request};
use scheduler::Steps;

/// A model of a comparison.
#[derive(Debug, Clone)]
pub struct Model {
    /// What the comparison calls it.
    pub name: String,
    /// The model itself.
    pub pipe: Pipeline,
}

impl Model {
    /// Whether it maps noise to pictures at once, as consistency models do: more than a few steps bring it nothing, and its answers have no ODE to follow.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        is_direct(&self.pipe)
    }
}

/// One combination of the axes' values.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Names it, and its files: letters, digits, dashes.
    pub id: String,
    /// One value of each axis, in the axes' order.
    pub values: Vec<Value>,
    /// What was decided for it.
    pub settings: CellSettings,
    /// What kind of path its sampler takes.
    pub path: Path,
    pub(super) model: usize,
    /// What will be run, or why it cannot be.
    pub(super) job: Result<Job, String>,
    /// The job whose path is the truth, if there is one, with its model and its name.
    pub(super) reference: Option<ReferenceOf>,
}

/// Whose path a cell is compared with.
#[derive(Debug, Clone)]
pub(super) struct ReferenceOf {
    pub(super) id: String,
    pub(super) model: usize,
    pub(super) job: Job,
}

impl Cell {
    /// The value on an axis.
    #[must_use]
    pub fn value(&self, axis: AxisName) -> Option<&Value> {
        self.values.iter().find(|value| value.axis() == axis)
    }

    /// What will be run, or why it cannot be.
    ///
    /// # Errors
    /// One sentence: a sampler that cannot run over a schedule, say.
    pub fn job(&self) -> Result<&Job, &str> {
        self.job.as_ref().map_err(String::as_str)
    }

    /// The id of the path that it is compared with.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_ref().map(|reference| reference.id.as_str())
    }
}

/// All combinations, the last axis changing fastest.
pub(super) fn combinations(axes: &[Axis]) -> Vec<Vec<Value>> {
    let mut all = vec![Vec::new()];
    for axis in axes {
        let longer = |before: &Vec<Value>| {
            let before = before.clone();
            axis.values().iter().map(move |value| [&before[..], std::slice::from_ref(value)].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// Decides what a combination means. Only errors that no other value of its axes could mend stop the comparison.
pub(super) fn cell(models: &[Model], direct: &[bool], base: &Request, values: Vec<Value>, varied: &[AxisName]) -> Cell {
    let mut request = base.clone();
    values.iter().for_each(|value| value.apply(&mut request));
    let wanted = values.iter().find_map(|value| if let Value::Model(name) = value { Some(name) } else { None });
    let model = wanted.and_then(|name| models.iter().position(|model| model.name == *name)).unwrap_or(0);
    let budget = values.iter().find_map(|value| if let Value::Evaluations(n) = value { Some(*n) } else { None });
    let pipe = &models[model].pipe;
    let job = match budget {
        Some(budget) => within(pipe, &mut request, budget),
        None => pipe.job(&request).map_err(|error| error.to_string()),
    };
    let settings = settings(&models[model].name, &request, job.as_ref().ok(), budget);
    let path = job.as_ref().map_or(Path::Other, |job| path_of(job, direct[model]));
    let id = id_of(&values, varied);
    Cell { id, values, settings, path, model, job, reference: None }
}

/// The job with the most steps that ask no more of the model than this; of a sampler that chooses its own steps, the request as it is.
fn within(pipe: &Pipeline, request: &mut Request, budget: usize) -> Result<Job, String> {
    let mut job = |steps: usize| {
        request.steps = Some(Steps::Count(steps));
        pipe.job(request)
    };
    let sentence = |error: PipelineError| error.to_string();
    let evaluations = |job: &Job| job.evaluations().unwrap_or(budget);
    // More steps never ask less of the model, and a step asks it once at least.
    let (mut low, mut high) = (1, budget.max(1));
    let fewest = evaluations(&job(1).map_err(sentence)?);
    if fewest > budget {
        return Err(format!("it needs {fewest} evaluations for its shortest run, more than {budget}"));
    }
    while low < high {
        let middle = (low + high).div_ceil(2);
        // A schedule may have fewer levels than the budget allows.
        let fits = job(middle).is_ok_and(|job| evaluations(&job) <= budget);
        if fits { low = middle } else { high = middle - 1 }
    }
    job(low).map_err(sentence)
}

fn settings(model: &str, request: &Request, job: Option<&Job>, budget: Option<usize>) -> CellSettings {
    let own = job.map(Job::settings);
    let named = request.sampler.map(|named| named.sampler);
    let sampler = job.map(|job| job.sampling().sampler).or(named).map_or("", |sampler| sampler.name);
    let asked = request.schedule.or(request.sampler.and_then(|named| named.schedule));
    let count = |steps: Option<&Steps>| match steps {
        Some(Steps::Count(count)) => *count,
        Some(Steps::Timesteps(list)) => list.len(),
        Some(Steps::Sigmas(list)) => list.len().saturating_sub(1),
        None => 0,
    };
    CellSettings {
        model: model.to_owned(),
        prompt: request.prompt.clone(),
        sampler: sampler.to_owned(),
        schedule: asked.map_or("", |schedule| schedule.name()).to_owned(),
        steps: count(own.map(|own| &own.steps).or(request.steps.as_ref())),
        budget,
        guidance: own.map_or(request.guidance_scale.unwrap_or(1.0), |own| own.guidance_scale),
        guidance_interval: request.guidance_interval.map(|interval| interval.to_string()),
        step_cache: request.step_cache.map(|cache| cache.to_string()),
        eta: request.eta,
        seed: request.seed,
    }
}

/// Samplers that are made for models that map noise to pictures at once, and such a model's own default.
const DIRECT: [&str; 4] = ["lcm", "tcd", "consistency", "one_step"];

/// Whether a model's own sampler is one of those. The ODE of its answers is not the one that it was distilled from.
pub(crate) fn is_direct(pipe: &Pipeline) -> bool {
    let own = pipe.job(&Request { prompt: String::new(), ..pipe.defaults_for(pipe.any_task()) });
    own.is_ok_and(|job| DIRECT.contains(&job.sampling().sampler.name))
}

/// What kind of path a job takes, by a model that maps noise to pictures at once or not.
pub(crate) fn path_of(job: &Job, is_direct: bool) -> Path {
    let (sampler, program) = (job.sampling().sampler, job.program());
    let draws = if program.is_fixed() { program.draws() > 0 } else { sampler.stochastic };
    if draws {
        Path::Sde
    } else if DIRECT.contains(&sampler.name) || program.wants_unguided() || is_direct {
        Path::Other
    } else {
        Path::Ode
    }
}

/// A name for files: what varies, and the sampler with its steps in any case.
fn id_of(values: &[Value], varied: &[AxisName]) -> String {
    let part = |value: &Value| {
        let kept = varied.contains(&value.axis()) || matches!(value.axis(), AxisName::Sampler | AxisName::Budget);
        let label = match value {
            Value::Prompt(prompt) => prompt.chars().take(24).collect(),
            // Of a path its last part.
            Value::Model(name) => name.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or(name).to_owned(),
            Value::Seed(seed) => format!("seed {seed}"),
            Value::Guidance(scale) => format!("guidance {scale}"),
            Value::GuidanceInterval(interval) => format!("guided {interval}"),
            Value::StepCache(None) => "no step cache".into(),
            Value::Eta(eta) => format!("eta {eta}"),
            Value::Steps(steps) => format!("{steps} steps"),
            other => other.label(),
        };
        kept.then(|| slug(&label))
    };
    let parts: Vec<String> = values.iter().filter_map(part).collect();
    // File systems allow 255 bytes, and something is put behind it.
    let id: String = parts.join("-").chars().take(60).collect();
    if id.is_empty() { "only".into() } else { id }
}

/// Letters and digits; all else dashes, never two together.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() || c == '_' || c == '.' {
            slug.push(c);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_matches(['-', '.']).to_owned()
}

/// Ids that no two cells share.
pub(super) fn distinguish(cells: &mut [Cell]) {
    for i in 1..cells.len() {
        let (before, rest) = cells.split_at_mut(i);
        let own = rest[0].id.clone();
        let mut n = 2;
        while before.iter().any(|cell| cell.id == rest[0].id) {
            rest[0].id = format!("{own}-{n}");
            n += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_files() {
        let values = vec![
            Value::Sampler("dpm++ 2m karras".parse().expect("a sampler")),
            Value::Steps(8),
            Value::Prompt("../a \"red\" cat".into()),
            Value::Guidance(1.5),
        ];
        assert_eq!(id_of(&values, &[]), "dpmpp_2m-karras-8-steps");
        let all = [AxisName::Prompt, AxisName::Guidance];
        assert_eq!(id_of(&values, &all), "dpmpp_2m-karras-8-steps-a-red-cat-guidance-1.5");
        assert_eq!(id_of(&[Value::Seed(1)], &[]), "only");
    }

    #[test]
    fn the_last_axis_changes_fastest() {
        let axis = |values: &[Value]| Axis::new(values.to_vec()).expect("an axis");
        let all = combinations(&[axis(&[Value::Seed(1), Value::Seed(2)]), axis(&[Value::Steps(4), Value::Steps(8)])]);
        let labels: Vec<String> = all.iter().map(|v| format!("{}/{}", v[0].label(), v[1].label())).collect();
        assert_eq!(labels, ["1/4", "1/8", "2/4", "2/8"]);
        assert_eq!(combinations(&[]), [Vec::new()]);
    }
}
