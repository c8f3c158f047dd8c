//! Textual inversion (Gal et al. 2022): vectors learned for a word, put after those of the vocabulary.

use crate::checkpoint::contents;
use crate::checkpoint::number_types::{finite, storage};
use crate::checkpoint::safetensors_file::{TensorFile, TensorInfo};
use crate::error::ModelError;
use std::path::Path;

/// A new word for CLIP's text encoders, given by one or more vectors.
#[derive(Debug, Clone)]
pub struct TextualInversion {
    shown: String,
    token: String,
    vectors: Vectors,
}

#[derive(Debug, Clone)]
enum Vectors {
    /// For one encoder, the one of this width.
    One(Table),
    /// For Stable Diffusion XL's encoders.
    Two([Table; 2]),
}

/// `[rows, channels]`.
#[derive(Debug, Clone)]
struct Table {
    rows: usize,
    channels: usize,
    values: Vec<f32>,
}

/// The part of a file that is for one text encoder.
#[derive(Debug)]
pub struct Learned<'a> {
    /// The file, for errors.
    pub shown: &'a str,
    /// The word.
    pub token: &'a str,
    /// How many vectors it stands for.
    pub rows: usize,
    /// `[rows, channels]`.
    pub values: &'a [f32],
}

/// Names of tensors that do not contain the word. The word is then the file's name. AUTOMATIC1111's web UI and its
/// trainers write such files.
const NAMELESS: &[&str] = &["emb_params", "clip_l", "clip_g"];

impl TextualInversion {
    /// Opens a file: `{"<word>": [n, d] or [d]}` as diffusers writes it, `{"emb_params": [n, d]}`, or `{"clip_l": [n,
    /// d], "clip_g": [n, e]}`. The word is `token` if given, else the tensor's name, else the file's name without its
    /// ending.
    ///
    /// # Errors
    /// When the file is damaged, a pickle, or none of these.
    pub fn open(path: &Path, token: Option<&str>) -> Result<Self, ModelError> {
        let file = TensorFile::at(path)?;
        let shown = path.display().to_string();
        let mut tensors: Vec<(String, TensorInfo)> = file.tensors().collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let (own, vectors) = Vectors::read(&file, &tensors).map_err(|why| ModelError::new(&*shown, why))?;
        let token = token.or(own).or_else(|| path.file_stem()?.to_str()).unwrap_or_default();
        Self::named(token, vectors, shown)
    }

    /// A word inside another file, where these tensors have the names that they would have in a file of their own.
    pub(crate) fn bundled(
        file: &TensorFile,
        shown: &str,
        token: &str,
        tensors: &[(String, TensorInfo)],
    ) -> Result<Self, ModelError> {
        let (_, vectors) = Vectors::read(file, tensors).map_err(|why| ModelError::new(shown, why))?;
        Self::named(token, vectors, shown.to_owned())
    }

    fn named(token: &str, vectors: Vectors, shown: String) -> Result<Self, ModelError> {
        if token.trim().is_empty() {
            return Err(ModelError::new(shown, "has no word that stands for it: give one"));
        }
        Ok(Self { token: token.to_owned(), vectors, shown })
    }

    /// The word that stands for it in a prompt.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The file, as it was named.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The vectors for each of a model's text encoders, which have these numbers of channels. A file with one table is
    /// for the first encoder of its width. Another encoder then reads the word as ordinary text, as in diffusers.
    ///
    /// # Errors
    /// When it fits no encoder, or is for two and the model has one; `model` names it.
    pub fn learned(&self, model: &str, channels: &[usize]) -> Result<Vec<Option<Learned<'_>>>, ModelError> {
        let fault = |message: String| Err(ModelError::new(&*self.shown, message));
        let tables: Vec<Option<&Table>> = match &self.vectors {
            Vectors::Two(_) if channels.len() != 2 => {
                return fault(format!(
                    "is for a model with two CLIP text encoders, and {model} has {}",
                    channels.len()
                ));
            }
            Vectors::Two(tables) => tables.iter().map(Some).collect(),
            Vectors::One(table) => {
                let place = channels.iter().position(|own| *own == table.channels).unwrap_or(0);
                (0..channels.len()).map(|i| (i == place).then_some(table)).collect()
            }
        };
        for (table, own) in tables.iter().zip(channels) {
            if let Some(found) = table.map(|table| table.channels).filter(|found| found != own) {
                let all: Vec<String> = channels.iter().map(usize::to_string).collect();
                return fault(format!(
                    "is for another model: its vectors have {found} numbers, and those of {model} {}",
                    all.join(" and ")
                ));
            }
        }
        let (shown, token) = (&*self.shown, &*self.token);
        let tables = tables.into_iter();
        Ok(tables.map(|table| table.map(|t| Learned { shown, token, rows: t.rows, values: &t.values })).collect())
    }
}

impl Vectors {
    /// The vectors in these tensors, which are sorted by name, and the word if a name is one.
    fn read<'a>(file: &TensorFile, tensors: &'a [(String, TensorInfo)]) -> Result<(Option<&'a str>, Self), String> {
        let names: Vec<&str> = tensors.iter().map(|(name, _)| &**name).collect();
        match &*names {
            ["clip_g", "clip_l"] => {
                let [second, first] = [0, 1].map(|i| table(file, &tensors[i].0, &tensors[i].1));
                let (first, second) = (first?, second?);
                if first.rows != second.rows {
                    let (first, second) = (first.rows, second.rows);
                    return Err(format!("has {first} vectors in clip_l and {second} in clip_g"));
                }
                Ok((None, Self::Two([first, second])))
            }
            [name] => {
                let own = Some(*name).filter(|name| !NAMELESS.contains(name));
                Ok((own, Self::One(table(file, name, &tensors[0].1)?)))
            }
            _ => {
                if let Some(what) = contents::of_tensors(names.iter().copied()) {
                    return Err(format!("is {what}, and no textual inversion: {}", what.advice()));
                }
                let (count, first) = (names.len(), names.first().copied().unwrap_or("none"));
                let forms = "one that is named by its word, emb_params, or clip_l with clip_g";
                Err(format!("is no textual inversion: it has {count} tensors ({first} first), not {forms}"))
            }
        }
    }
}

fn table(file: &TensorFile, name: &str, info: &TensorInfo) -> Result<Table, String> {
    let (rows, channels) = match *info.shape {
        [channels] => (1, channels),
        [rows, channels] => (rows, channels),
        _ => return Err(format!("has {name} of shape {:?}, not [vectors, channels]", info.shape)),
    };
    if rows == 0 || channels == 0 {
        return Err(format!("has no vectors in {name}"));
    }
    match storage(info) {
        None => Err(format!("has the unsupported number type {} for {name}", info.dtype)),
        Some(kind) if !finite(kind, &file.bytes(&info.bytes)?) => Err(format!("has infinities or NaN in {name}")),
        Some(_) => Ok(Table { rows, channels, values: file.to_f32(info).unwrap_or_default() }),
    }
}
