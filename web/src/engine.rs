//! What scripts see: a device, the models on it, and runs that are asked for one step after the other.

use crate::blobs::Files;
use crate::job::{self, Pictures};
use js_sys::Function;
use pipelines::{
    DeviceChoice, DeviceSettings, Job, Pipeline, RgbImage, SelftestDepth, SharedDevice, open_device_async,
    selftest_async,
};
use scheduler::Frame;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// A sentence, as a script catches it.
fn failed(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

/// What the executor's plans may hold together: WebAssembly addresses 4 GiB, in which a tensor that is being read and the pictures lie, too, and beyond
/// them it ends.
const MOST_NATIVE_MEMORY: u64 = 3 << 30;

fn settings(least_limits: bool) -> DeviceSettings {
    DeviceSettings { least_limits, max_native_memory: Some(MOST_NATIVE_MEMORY), ..DeviceSettings::default() }
}

fn choice(device: &str) -> DeviceChoice {
    // Its parser refuses nothing.
    device.parse().unwrap_or_default()
}

/// How many bytes of weights the processor's plans can hold.
#[wasm_bindgen]
pub fn most_native_memory() -> f64 {
    MOST_NATIVE_MEMORY as f64
}

/// A device with the models that were loaded on it.
#[wasm_bindgen]
pub struct Engine {
    device: SharedDevice,
    pipelines: Vec<(String, Pipeline)>,
}

#[wasm_bindgen]
impl Engine {
    /// Opens `cpu`, `gpu` (the adapter that the browser gives through WebGPU), or `auto`: the adapter, or the processor where there is none. With
    /// `least_limits` an adapter is asked for no more than every WebGPU has.
    pub async fn open(device: String, least_limits: bool) -> Result<Engine, JsError> {
        let device = open_device_async(&choice(&device), &settings(least_limits)).await.map_err(failed)?;
        Ok(Self { device, pipelines: Vec::new() })
    }

    /// What the device says of itself, in JSON.
    pub fn info(&self) -> String {
        let info = self.device.info();
        json!({ "name": info.name, "kind": info.kind.to_string(), "backend": info.backend, "driver": info.driver, "features": info.features })
            .to_string()
    }

    /// Reads a model of files in diffusers' layout, or of one file. Says in JSON what it takes and makes.
    pub fn load(&mut self, id: String, files: Files) -> Result<String, JsError> {
        let files = files.into_model(&id).map_err(failed)?;
        let pipeline = Pipeline::from_pretrained(&self.device, &files, Default::default()).map_err(failed)?;
        let defaults = pipeline.defaults();
        let steps = match defaults.steps {
            Some(scheduler::Steps::Count(count)) => Some(count),
            _ => None,
        };
        let about = json!({
            "id": id, "width": defaults.width, "height": defaults.height, "steps": steps, "guidance": defaults.guidance_scale,
            "takes_prompt": pipeline.takes_prompt(), "classes": pipeline.classes(), "makes_pictures": pipeline.makes_pictures(),
            "makes_pixels": pipeline.samples_are_pictures(),
        });
        self.pipelines.retain(|(own, _)| *own != id);
        self.pipelines.push((id, pipeline));
        Ok(about.to_string())
    }

    /// Lets a model go.
    pub fn unload(&mut self, id: &str) {
        self.pipelines.retain(|(own, _)| own != id);
    }

    fn pipeline(&self, fields: &serde_json::Map<String, Value>) -> Result<Pipeline, JsError> {
        let id = fields.get("model").and_then(Value::as_str);
        let found = match id {
            Some(id) => self.pipelines.iter().find(|(own, _)| own == id),
            None => self.pipelines.first(),
        };
        let found = found.map(|(_, pipeline)| pipeline.clone());
        found.ok_or_else(|| JsError::new(&format!("the model {} is not loaded", id.unwrap_or("that was asked for"))))
    }

    /// Checks a job, says in JSON what it will need, and computes nothing.
    pub fn check(&self, job: &str, image: Option<Picture>, mask: Option<Picture>) -> Result<String, JsError> {
        let fields = fields(job)?;
        let pipeline = self.pipeline(&fields)?;
        let request = job::request(&fields, Pictures::of(image, mask)).map_err(failed)?;
        let job = pipeline.job(&request).map_err(failed)?;
        let estimate = pipeline.estimate(&job, 1).map_err(failed)?;
        let bytes = [estimate.text, estimate.denoiser, estimate.decoder].map(|part| part.weights + part.activations);
        let warnings: Vec<String> = job.warnings().iter().map(ToString::to_string).collect();
        Ok(json!({ "bytes": bytes.iter().sum::<u64>(), "steps": job.sigmas().len(), "warnings": warnings }).to_string())
    }

    /// Starts a job: its fields in JSON, and its pictures.
    pub async fn start(&self, job: String, image: Option<Picture>, mask: Option<Picture>) -> Result<Run, JsError> {
        let fields = fields(&job)?;
        let pipeline = self.pipeline(&fields)?;
        let request = job::request(&fields, Pictures::of(image, mask)).map_err(failed)?;
        let job = pipeline.job(&request).map_err(failed)?;
        let run = pipeline.start_async(&job).await.map_err(failed)?;
        Ok(Run { run: Some(run), pipeline, job })
    }
}

fn fields(job: &str) -> Result<serde_json::Map<String, Value>, JsError> {
    serde_json::from_str(job).map_err(|error| failed(format!("the job is no object of fields: {error}")))
}

impl Pictures {
    fn of(image: Option<Picture>, mask: Option<Picture>) -> Self {
        Self { image: image.map(|picture| picture.0), mask: mask.map(|picture| picture.0) }
    }
}

/// A job that is running. Nothing happens between two calls; to cancel it, free it.
#[wasm_bindgen]
pub struct Run {
    run: Option<pipelines::Run>,
    pipeline: Pipeline,
    job: Job,
}

#[wasm_bindgen]
impl Run {
    /// The next step; nothing when all are done.
    pub async fn next(&mut self) -> Result<Option<Step>, JsError> {
        let run = self.run.as_mut().ok_or_else(|| JsError::new("this run is over"))?;
        let Some(step) = run.next_async().await.map_err(failed)? else { return Ok(None) };
        // Made as small as its noise is large, so that both noise and image are seen.
        let is_flow = self.job.sampling().schedule.frame == Frame::Flow;
        let scale = if is_flow { 1.0 } else { 1.0 / (1.0 + step.sigma) };
        #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
        let x: Vec<f32> = step.x.iter().map(|value| value * scale as f32).collect();
        let (mut denoised, mut noisy) = (None, None);
        if self.pipeline.decodes_quickly(&self.job) {
            let decode = async |sample| self.pipeline.decode_async(&self.job, sample).await.map_err(failed);
            denoised = decode(step.denoised).await?.map(Picture);
            noisy = decode(&x).await?.map(Picture);
        }
        Ok(Some(Step {
            index: step.index,
            steps: step.steps,
            sigma: step.sigma,
            evaluations: step.evaluations,
            seconds: step.elapsed.as_secs_f64(),
            denoised,
            noisy,
        }))
    }

    /// Takes the steps that are left, and gives the picture.
    pub async fn finish(&mut self) -> Result<Made, JsError> {
        let run = self.run.take().ok_or_else(|| JsError::new("this run is over"))?;
        let generated = run.finish_async().await.map_err(failed)?;
        let image = generated.image.map(Picture);
        Ok(Made { image, sample: generated.sample, steps: generated.steps, evaluations: generated.evaluations })
    }
}

/// A step, as it happened.
#[wasm_bindgen]
pub struct Step {
    /// Counts from 0.
    pub index: usize,
    /// How many there will be; 0 if the sampler chooses its own.
    pub steps: usize,
    /// The noise level that it starts from.
    pub sigma: f64,
    /// How often the model has run so far.
    pub evaluations: usize,
    /// Since the first step began.
    pub seconds: f64,
    denoised: Option<Picture>,
    noisy: Option<Picture>,
}

#[wasm_bindgen]
impl Step {
    /// The model's estimate of the picture; nothing where samples are latents of a large autoencoder. It is handed over, once.
    pub fn denoised(&mut self) -> Option<Picture> {
        self.denoised.take()
    }

    /// The sample that the step starts from; the same.
    pub fn noisy(&mut self) -> Option<Picture> {
        self.noisy.take()
    }
}

/// What came of a run.
#[wasm_bindgen]
pub struct Made {
    image: Option<Picture>,
    sample: Vec<f32>,
    /// Steps taken.
    pub steps: usize,
    /// How often the model ran.
    pub evaluations: usize,
}

#[wasm_bindgen]
impl Made {
    /// The picture; nothing where the model makes none. It is handed over, once.
    pub fn image(&mut self) -> Option<Picture> {
        self.image.take()
    }

    /// The final sample, `[H, W, C]`.
    pub fn sample(&self) -> Vec<f32> {
        self.sample.clone()
    }
}

/// A picture of 8 bits a channel.
#[wasm_bindgen]
pub struct Picture(RgbImage);

#[wasm_bindgen]
impl Picture {
    /// Of rows of red, green, blue and opacity, as canvases have them. Opacity is dropped.
    #[wasm_bindgen(constructor)]
    pub fn new(width: usize, height: usize, rgba: &[u8]) -> Picture {
        Self(RgbImage {
            width,
            height,
            pixels: rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        })
    }

    /// Columns.
    #[wasm_bindgen(getter)]
    pub fn width(&self) -> usize {
        self.0.width
    }

    /// Rows.
    #[wasm_bindgen(getter)]
    pub fn height(&self) -> usize {
        self.0.height
    }

    /// As canvases take it.
    pub fn rgba(&self) -> Vec<u8> {
        self.0.pixels.chunks_exact(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect()
    }
}

/// The samplers and the schedules that there are, in JSON.
#[wasm_bindgen]
pub fn samplers() -> String {
    let one = |sampler: &&scheduler::Sampler| {
        let tools = sampler.aliases.by_tool().into_iter().chain([("other", sampler.aliases.other)]);
        let aliases: serde_json::Map<String, Value> =
            tools.map(|(tool, names)| (tool.to_owned(), json!(names))).collect();
        json!({
            "name": sampler.name, "summary": sampler.summary, "aliases": aliases, "evaluations_per_step": sampler.evaluations,
            "stochastic": sampler.stochastic,
        })
    };
    let schedules: Vec<&str> = scheduler::SCHEDULES.iter().map(|(schedule, _)| schedule.name()).collect();
    json!({ "samplers": scheduler::SAMPLERS.iter().map(one).collect::<Vec<_>>(), "schedules": schedules }).to_string()
}

/// Compares every kernel of a device with its reference, and tells each comparison in JSON. `brief` leaves out problems on which kernels that take long
/// to compile differ little.
#[wasm_bindgen]
pub async fn selftest(device: String, least_limits: bool, brief: bool, tell: Function) -> Result<(), JsError> {
    let (choice, settings) = (choice(&device), settings(least_limits));
    let depth = if brief { SelftestDepth::Brief } else { SelftestDepth::Full };
    let told = selftest_async(&choice, &settings, depth, |case| {
        let (error, tolerance) = (case.error, case.tolerance);
        let text = json!({
            "kernel": case.kernel, "case": case.case, "passed": case.passed(), "error": error, "tolerance": tolerance,
            "message": case.message,
        });
        // What the script makes of it is its own affair.
        let _ = tell.call1(&JsValue::NULL, &JsValue::from_str(&text.to_string()));
    });
    told.await.map_err(failed)
}
