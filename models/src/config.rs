//! Reads `config.json`. The fields of a typed struct are used. Of the others, those that the class has in its own library are
//! listed with the values at which they change nothing, and refused at other values. Whatever else a file says is
//! bookkeeping of those who wrote it (a trainer's averages, a library's version), which diffusers and transformers pass over too.

use crate::error::ModelError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::{Map, Value};

/// Fields that the typed part of a configuration did not take.
pub(crate) type Rest = Map<String, Value>;

/// Something for all levels of a model, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum SameOrEach<T> {
    // Tried first, so that a list is one of levels where `T` may be a list too.
    Each(Vec<T>),
    Same(T),
}

impl<T> SameOrEach<T> {
    /// Whether there is one for each of `levels` levels.
    pub(crate) fn fits(&self, levels: usize) -> bool {
        matches!(self, Self::Same(_)) || matches!(self, Self::Each(all) if all.len() == levels)
    }

    /// That of one level. `level` is below the count that [`fits`](Self::fits) accepted.
    pub(crate) fn of(&self, level: usize) -> &T {
        match self {
            Self::Same(one) => one,
            Self::Each(all) => &all[level],
        }
    }
}

/// Sides of a sample: one number for both, or height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Sides {
    Both(usize),
    HeightWidth([usize; 2]),
}

impl Sides {
    /// Height and width.
    pub(crate) fn extents(self) -> [usize; 2] {
        match self {
            Self::Both(side) => [side, side],
            Self::HeightWidth(sides) => sides,
        }
    }
}

/// A field that is not implemented, and the values at which it has no effect. Other values are refused.
pub(crate) struct Inert {
    pub(crate) field: &'static str,
    /// JSON texts of the accepted values; empty when every value is harmless during inference.
    pub(crate) values: &'static [&'static str],
}

/// A field that never changes what inference computes.
pub(crate) const fn any(field: &'static str) -> Inert {
    Inert { field, values: &[] }
}

/// A field that changes nothing at these values.
pub(crate) const fn only(field: &'static str, values: &'static [&'static str]) -> Inert {
    Inert { field, values }
}

/// Parses one JSON file.
pub(crate) fn parse<T: DeserializeOwned>(path: &str, text: &[u8]) -> Result<T, ModelError> {
    serde_json::from_slice(text)
        .map_err(|error| ModelError::new(path, format!("is not understood: {}", plainly::<T>(&error, text))))
}

/// Parses the text of a file that is one JSON object; `path` names the file in errors.
///
/// # Errors
/// When it is none, with the line and column from which on it is not.
pub fn json_object(path: &str, text: &str) -> Result<Map<String, Value>, ModelError> {
    parse(path, text.as_bytes())
}

/// What is wrong with a JSON text, with the line and column that a person who edits the file needs, and without words
/// that only the parser's authors know.
fn plainly<T: DeserializeOwned>(error: &serde_json::Error, text: &[u8]) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        _ if text.trim_ascii().is_empty() => "it is empty".into(),
        Category::Eof => format!("its JSON is cut off at {place}"),
        Category::Syntax => format!("it is no JSON from {place} on"),
        Category::Data | Category::Io => match serde_json::from_slice(text) {
            Ok(Value::Object(fields)) => at_fault::<T>(fields),
            Ok(_) => "it is not a JSON object".into(),
            Err(_) => format!("it is no JSON from {place} on"),
        },
    }
}

/// Which field of an object cannot be read. Every field of what is read here has a default, so each can be read alone.
pub(crate) fn at_fault<T: DeserializeOwned>(fields: Map<String, Value>) -> String {
    let unread = |fields| serde_json::from_value::<T>(Value::Object(fields)).err();
    if unread(Map::new()).is_none() {
        for (name, value) in fields {
            let shown = brief(&value.to_string());
            let Some(error) = unread(Map::from_iter([(name.clone(), value)])) else { continue };
            let error = error.to_string();
            // The parser lists what there may be instead.
            return match error.starts_with("unknown ") {
                true => format!("{name} = {shown} is an {error}"),
                false => format!("{name} = {shown} is of another kind than it may be"),
            };
        }
    }
    "a field has a value of none of the kinds that it may have".into()
}

/// Parses a configuration whose `field` names one of the supported classes.
pub(crate) fn parse_class<T: DeserializeOwned>(
    path: &str,
    text: &[u8],
    field: &str,
    supported: &[&str],
) -> Result<T, ModelError> {
    // The class is checked first. Otherwise a file of another class would be refused for its fields, not for its class.
    let fields: Rest = parse(path, text)?;
    check_class(path, field, fields.get(field), supported)?;
    check_depths(path, &fields)?;
    parse(path, text)
}

/// The most layers or blocks of one kind: a graph is built of each.
pub(crate) const MOST_LAYERS: usize = 1024;

/// Refuses numbers of layers and blocks that no model has, wherever they stand in a configuration, before anything is built of them.
fn check_depths(path: &str, fields: &Rest) -> Result<(), ModelError> {
    fn largest(value: &Value) -> f64 {
        match value {
            Value::Array(values) => values.iter().map(largest).fold(0.0, f64::max),
            value => value.as_f64().unwrap_or(0.0),
        }
    }
    let is_depth = |name: &str| ["layers", "blocks", "heads"].iter().any(|word| name.contains(word));
    match fields.iter().find(|(name, value)| is_depth(name) && largest(value) > MOST_LAYERS as f64) {
        Some((name, value)) => {
            let message = format!("{name} = {} is not between 1 and {MOST_LAYERS}", brief(&value.to_string()));
            Err(ModelError::new(path, message))
        }
        None => Ok(()),
    }
}

/// The most levels of a UNet or an autoencoder, each of half the side of the one before: more would leave nothing of any picture.
pub(crate) const MOST_LEVELS: usize = 16;

/// Refuses more levels than a picture can be halved.
pub(crate) fn check_levels(path: &str, levels: usize) -> Result<(), ModelError> {
    if levels <= MOST_LEVELS {
        return Ok(());
    }
    Err(ModelError::new(
        path,
        format!("block_out_channels has {levels} levels, more than the {MOST_LEVELS} of any model"),
    ))
}

/// Refuses a padding that diffusers' downsampling does not have: on all sides, or on two, which it writes as none.
pub(crate) fn check_padding(path: &str, padding: usize) -> Result<(), ModelError> {
    if padding <= 1 {
        return Ok(());
    }
    Err(ModelError::new(path, format!("downsample_padding = {padding} is neither 0 nor 1")))
}

/// Refuses a class that this reader does not implement.
pub(crate) fn check_class(
    path: &str,
    field: &str,
    class: Option<&Value>,
    supported: &[&str],
) -> Result<(), ModelError> {
    let supported_names = supported.join(", ");
    match class {
        Some(Value::String(class)) if supported.contains(&&**class) => Ok(()),
        Some(class) => {
            let class = class.as_str().map_or_else(|| class.to_string(), str::to_owned);
            let message =
                format!("{field} is {}, which is not supported (supported: {supported_names})", brief(&class));
            Err(ModelError::new(path, message))
        }
        None => Err(ModelError::new(path, format!("has no {field} (supported: {supported_names})"))),
    }
}

/// Refuses the fields of a class that ask for a computation that is not implemented; `inert` lists all that its struct does
/// not take. Quantized weights mean something else in any class.
pub(crate) fn check_rest(path: &str, rest: &Rest, inert: &[Inert]) -> Result<(), ModelError> {
    const QUANTIZED: Inert = only("quantization_config", &["null"]);
    for known in inert.iter().chain([&QUANTIZED]).filter(|known| !known.values.is_empty()) {
        let Some(value) = rest.get(known.field) else { continue };
        let text = value.to_string();
        if !known.values.contains(&&*text) {
            let (field, supported) = (known.field, known.values.join(" or "));
            let message = format!("{field} = {} is not supported (only {supported} is)", brief(&text));
            return Err(ModelError::new(path, message));
        }
    }
    Ok(())
}

/// Refuses sizes that no real model has, before shapes are computed and graphs are built from them.
pub(crate) fn check_sizes(path: &str, sizes: &[(&str, usize)]) -> Result<(), ModelError> {
    for (field, value) in sizes {
        let largest = if field.contains("vocab") {
            1 << 24
        } else if field.contains("layers") || field.contains("patch") || field.contains("heads") {
            1024
        } else {
            1 << 20
        };
        if *value == 0 || *value > largest {
            return Err(ModelError::new(path, format!("{field} = {value} is not between 1 and {largest}")));
        }
    }
    Ok(())
}

/// A value short enough for one sentence.
pub(crate) fn brief(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
