//! The folder of a comparison: what is written as cells come, and read again by a run that goes on.

use super::files::{make_folder, tensor_file, write, write_bytes};
use super::pictures::{Preview, jpeg, png, thumbnail};
use super::{ReportError, pictures};
use crate::compare::cells::Cell;
use crate::compare::record::Record;
use crate::compare::reference::{Node, Point, Reference};
use crate::compare::study::{Comparison, Event};
use pipelines::{RgbImage, SampleShape};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use scheduler::Frame;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Longest side of a picture in the page.
const LONGEST: usize = 128;

/// Writes a comparison into a folder as it goes, and reads what an earlier run left there.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    save_tensors: bool,
    /// By model.
    previews: HashMap<usize, Preview>,
    current: Option<Current>,
}

/// The cell that runs.
#[derive(Debug)]
struct Current {
    cell: usize,
    shown: Shown,
    /// Steps that wait for a map from latents to pictures.
    waiting: Vec<StepSample>,
}

#[derive(Debug)]
struct StepSample {
    step: usize,
    /// Evaluations of the model so far.
    nfe: usize,
    sigma: f64,
    x: Vec<f32>,
    denoised: Vec<f32>,
    reference: Option<Point>,
    shape: SampleShape,
}

/// What the page shows of a cell: JPEG files in base64, one for each step. They lie beside the numbers, so that the page is put together without making any
/// picture again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) x: Vec<String>,
    pub(super) denoised: Vec<String>,
    pub(super) difference: Vec<String>,
    pub(super) last: String,
}

/// A finished cell's file.
#[derive(Debug, Serialize, Deserialize)]
struct CellFile {
    record: Record,
    shown: Shown,
}

impl Recorder {
    /// Opens a folder for a comparison: a new or empty one, or that of the same comparison, whose finished cells are then left out of this one. `shared`
    /// says what all cells have in common; a folder where that differs belongs to another comparison. Axes may have got other values.
    ///
    /// # Errors
    /// Where the folder holds something else, or cannot be written to.
    pub fn open(
        folder: &Path,
        comparison: &mut Comparison,
        shared: &Value,
        save_tensors: bool,
    ) -> Result<Self, ReportError> {
        make_folder(folder)?;
        let marker = folder.join("comparison.json");
        match std::fs::read(&marker) {
            Ok(bytes) => {
                let known: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                if let Some(what) = differs(&known["shared"], shared) {
                    return Err(ReportError::Other { folder: folder.to_owned(), what });
                }
            }
            Err(_) => {
                let mut entries =
                    std::fs::read_dir(folder).map_err(|error| ReportError::Write { path: folder.to_owned(), error })?;
                if entries.next().is_some() {
                    return Err(ReportError::NotOurs { folder: folder.to_owned() });
                }
            }
        }
        let axes: Vec<Value> = comparison
            .axes()
            .iter()
            .map(|axis| json!({ "axis": axis.name().name(), "values": axis.values().iter().map(|v| v.label()).collect::<Vec<_>>() }))
            .collect();
        let text = json!({ "version": env!("CARGO_PKG_VERSION"), "shared": shared, "axes": axes });
        write_bytes(&marker, format!("{text:#}\n").as_bytes())?;
        for name in ["cells", "pictures", "references", "steps"] {
            make_folder(&folder.join(name))?;
        }
        let recorder = Self { folder: folder.to_owned(), save_tensors, previews: HashMap::new(), current: None };
        // A run that failed is tried again; a cell that cannot run stays one.
        let is_done =
            |cell: &&Cell| recorder.read(cell).is_some_and(|file| file.record.refused.is_none() == cell.job().is_ok());
        let done = comparison.cells().iter().filter(is_done);
        let done: HashSet<String> = done.map(|cell| cell.id.clone()).collect();
        comparison.skip(&done);
        Ok(recorder)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A finished cell's file, if it is there and is this cell's.
    fn read(&self, cell: &Cell) -> Option<CellFile> {
        let bytes = std::fs::read(self.cell_path(&cell.id)).ok()?;
        let file: CellFile = serde_json::from_slice(&bytes).ok()?;
        let own = &file.record;
        let same =
            own.settings == cell.settings && own.path == cell.path && own.reference.as_deref() == cell.reference();
        same.then_some(file)
    }

    pub(super) fn shown(&self, cell: &Cell) -> Shown {
        self.read(cell).map(|file| file.shown).unwrap_or_default()
    }

    /// All cells that are done, in the comparison's order.
    #[must_use]
    pub fn records(&self, comparison: &Comparison) -> Vec<Record> {
        comparison.cells().iter().filter_map(|cell| Some(self.read(cell)?.record)).collect()
    }

    fn cell_path(&self, id: &str) -> PathBuf {
        self.folder.join("cells").join(format!("{id}.json"))
    }

    pub(super) fn picture_path(&self, id: &str) -> PathBuf {
        self.folder.join("pictures").join(format!("{id}.png"))
    }

    pub(super) fn step_path(&self, id: &str, step: usize, what: &str) -> PathBuf {
        self.folder.join("steps").join(id).join(format!("{step:03}-{what}"))
    }

    /// Takes down what happened.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn record(&mut self, comparison: &Comparison, event: &Event) -> Result<(), ReportError> {
        match event {
            Event::Solving { .. } | Event::Drawing { .. } => Ok(()),
            Event::Solved { cell, path, picture } => {
                let id = comparison.cells()[*cell].reference().unwrap_or_default();
                self.fit(comparison, *cell, path.end(), path.shape(), picture.as_ref());
                self.save_reference(id, path)?;
                self.save_picture(id, path.end(), path.shape(), picture.as_ref(), comparison, *cell).map(|_| ())
            }
            Event::Step { cell, step, x, denoised, reference, shape } => {
                let sample = StepSample {
                    step: step.step,
                    nfe: step.nfe,
                    sigma: step.sigma,
                    x: x.clone(),
                    denoised: denoised.clone(),
                    reference: reference.clone(),
                    shape: *shape,
                };
                self.step(comparison, *cell, sample)
            }
            Event::Done { cell, record, made } => {
                if let Some(made) = made {
                    self.fit(comparison, *cell, &made.sample, made.shape, made.image.as_ref());
                }
                let mut current = self.take_current(*cell);
                for sample in std::mem::take(&mut current.waiting) {
                    self.show(comparison, *cell, &sample, &mut current.shown)?;
                }
                if let Some(made) = made {
                    let image = made.image.as_ref();
                    let shown = self.save_picture(&record.id, &made.sample, made.shape, image, comparison, *cell)?;
                    current.shown.last = shown.unwrap_or_default();
                }
                let file = CellFile { record: (**record).clone(), shown: current.shown };
                write(&self.cell_path(&record.id), |out| Ok(serde_json::to_writer(out, &file)?))
            }
        }
    }

    fn take_current(&mut self, cell: usize) -> Current {
        let fresh = || Current { cell, shown: Shown::default(), waiting: Vec::new() };
        self.current.take().filter(|current| current.cell == cell).unwrap_or_else(fresh)
    }

    /// How the samples of a cell's model become pictures, as soon as one sample and its picture are known.
    fn fit(
        &mut self,
        comparison: &Comparison,
        cell: usize,
        sample: &[f32],
        shape: SampleShape,
        image: Option<&RgbImage>,
    ) {
        let model = comparison.cells()[cell].model;
        if self.preview(comparison, cell).is_some() {
            return;
        }
        if let Some(preview) = image.and_then(|image| Preview::fit(sample, shape, image)) {
            self.previews.insert(model, preview);
        }
    }

    fn preview(&self, comparison: &Comparison, cell: usize) -> Option<Preview> {
        let own = &comparison.cells()[cell];
        let exact = own.job().ok().and_then(|job| Preview::exact(&comparison.models()[own.model].pipe, job));
        exact.or_else(|| self.previews.get(&own.model).cloned())
    }

    fn step(&mut self, comparison: &Comparison, cell: usize, sample: StepSample) -> Result<(), ReportError> {
        let id = &comparison.cells()[cell].id;
        let mut current = self.take_current(cell);
        if sample.step == 1 {
            make_folder(&self.folder.join("steps").join(id))?;
        }
        if self.save_tensors {
            let tensors = [("x", &sample.x[..]), ("denoised", &sample.denoised[..])];
            let [sigma, step, nfe] = [sample.sigma.to_string(), sample.step.to_string(), sample.nfe.to_string()];
            let texts = [("sigma", &*sigma), ("step", &step), ("evaluations", &nfe)];
            let bytes = tensor_file(&tensors, sample.shape, &texts).map_err(ReportError::Picture)?;
            write_bytes(&self.step_path(id, sample.step, "sample.safetensors"), &bytes)?;
        }
        if self.preview(comparison, cell).is_some() {
            self.show(comparison, cell, &sample, &mut current.shown)?;
        } else {
            current.waiting.push(sample);
        }
        self.current = Some(current);
        Ok(())
    }

    /// Writes a step's pictures, and keeps small ones for the page.
    fn show(
        &self,
        comparison: &Comparison,
        cell: usize,
        sample: &StepSample,
        shown: &mut Shown,
    ) -> Result<(), ReportError> {
        let Some(preview) = self.preview(comparison, cell) else { return Ok(()) };
        let own = &comparison.cells()[cell];
        let is_flow = own.job().is_ok_and(|job| job.sampling().schedule.frame == Frame::Flow);
        let x = preview.noisy(&sample.x, sample.sigma, is_flow, sample.shape);
        let denoised = preview.denoised(&sample.denoised, sample.shape);
        let point = sample.reference.as_ref();
        let difference =
            point.and_then(|point| preview.difference(&sample.x, &point.x, sample.shape, (sample.sigma, is_flow)));
        for (what, image) in [("x.png", &x), ("denoised.png", &denoised)] {
            if let Some(image) = image {
                // Not beside its place first: the cell's own file is written last, and says that all of these are whole.
                let path = self.step_path(&own.id, sample.step, what);
                let bytes = png(image, ::png::Compression::Fast)?;
                std::fs::write(&path, bytes).map_err(|error| ReportError::Write { path, error })?;
            }
        }
        let small = |image: Option<RgbImage>| image.and_then(|image| jpeg(&thumbnail(&image, LONGEST)));
        shown.x.extend(small(x));
        shown.denoised.extend(small(denoised));
        shown.difference.extend(small(difference));
        Ok(())
    }

    /// Writes a final picture, or a preview of it, and gives the small one.
    fn save_picture(
        &self,
        id: &str,
        sample: &[f32],
        shape: SampleShape,
        image: Option<&RgbImage>,
        comparison: &Comparison,
        cell: usize,
    ) -> Result<Option<String>, ReportError> {
        let previewed = || self.preview(comparison, cell).and_then(|preview| preview.denoised(sample, shape));
        let Some(image) = image.cloned().or_else(previewed) else { return Ok(None) };
        write_bytes(&self.picture_path(id), &png(&image, ::png::Compression::Balanced)?)?;
        Ok(jpeg(&thumbnail(&image, LONGEST)))
    }

    fn reference_path(&self, id: &str) -> PathBuf {
        self.folder.join("references").join(format!("{id}.safetensors"))
    }

    /// x and denoised of every node, `[N, H, W, C]`, ln σ, and the end.
    fn save_reference(&self, id: &str, path: &Reference) -> Result<(), ReportError> {
        let failed = |error: safetensors::SafeTensorError| ReportError::Picture(error.to_string());
        let (shape, nodes) = (path.shape(), path.nodes());
        let all = |value: &dyn Fn(&Node) -> &[f32]| -> Vec<u8> {
            nodes.iter().flat_map(|node| value(node).iter().flat_map(|v| v.to_le_bytes())).collect()
        };
        let levels: Vec<u8> = nodes.iter().flat_map(|node| node.log_sigma.to_le_bytes()).collect();
        let (x, denoised) = (all(&|node| &node.x), all(&|node| &node.denoised));
        let end: Vec<u8> = path.end().iter().flat_map(|v| v.to_le_bytes()).collect();
        let one = vec![shape.height, shape.width, shape.channels];
        let many = [&[nodes.len()], &one[..]].concat();
        let view = |dtype, extents: &[usize], bytes| TensorView::new(dtype, extents.to_vec(), bytes).map_err(failed);
        let views = vec![
            ("log_sigma", view(Dtype::F64, &[nodes.len()], &levels)?),
            ("x", view(Dtype::F32, &many, &x)?),
            ("denoised", view(Dtype::F32, &many, &denoised)?),
            ("end", view(Dtype::F32, &one, &end)?),
        ];
        let metadata = HashMap::from([("evaluations".to_owned(), path.evaluations().to_string())]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
        write_bytes(&self.reference_path(id), &bytes)
    }

    /// A reference path that an earlier run solved; none where it is not there whole.
    #[must_use]
    pub fn reference(&self, id: &str) -> Option<Reference> {
        let bytes = std::fs::read(self.reference_path(id)).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let evaluations = header.metadata().as_ref()?.get("evaluations")?.parse().ok()?;
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let floats = |name: &str| -> Option<Vec<f32>> {
            let tensor = file.tensor(name).ok().filter(|tensor| tensor.dtype() == Dtype::F32)?;
            Some(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let (x, denoised, end) = (floats("x")?, floats("denoised")?, floats("end")?);
        let [height, width, channels] = file.tensor("end").ok()?.shape().try_into().ok()?;
        let levels = file.tensor("log_sigma").ok().filter(|tensor| tensor.dtype() == Dtype::F64)?;
        let levels = levels.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default()));
        let size = end.len();
        let whole = size > 0 && x.len() == denoised.len() && x.len() == size * levels.len();
        let nodes = whole.then(|| {
            let parts = levels.zip(x.chunks_exact(size)).zip(denoised.chunks_exact(size));
            parts.map(|((log_sigma, x), d)| Node { log_sigma, x: x.to_vec(), denoised: d.to_vec() }).collect()
        })?;
        Some(Reference::from_parts(nodes, end, SampleShape { height, width, channels }, evaluations))
    }

    /// The reference's picture.
    pub(super) fn reference_picture(&self, id: &str) -> Option<RgbImage> {
        pictures::read(&self.picture_path(id))
    }

    /// The denoised image of the reference at some noise levels.
    pub(super) fn reference_steps(
        &self,
        comparison: &Comparison,
        cell: usize,
        sigmas: &[f64],
    ) -> Vec<Option<RgbImage>> {
        let own = &comparison.cells()[cell];
        let Some(path) = own.reference().and_then(|id| self.reference(id)) else { return vec![None; sigmas.len()] };
        let mut preview = self.preview(comparison, cell);
        if preview.is_none() {
            let picture = own.reference().and_then(|id| self.reference_picture(id));
            preview = picture.and_then(|picture| Preview::fit(path.end(), path.shape(), &picture));
        }
        let one = |sigma: &f64| preview.as_ref()?.denoised(&path.at(*sigma)?.denoised, path.shape());
        sigmas.iter().map(one).collect()
    }
}

/// The first entry in which two objects differ.
fn differs(known: &Value, wanted: &Value) -> Option<String> {
    let (Some(known), Some(wanted)) = (known.as_object(), wanted.as_object()) else { return Some("contents".into()) };
    let keys = wanted.keys().chain(known.keys());
    keys.into_iter().find(|key| known.get(*key) != wanted.get(*key)).map(|key| key.replace('_', " "))
}
