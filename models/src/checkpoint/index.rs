use crate::checkpoint::files::ModelFiles;
use crate::config::{at_fault, parse};
use crate::error::ModelError;
use serde::Deserialize;
use serde_json::{Map, Value};

/// diffusers' `model_index.json`: which class each part of a pipeline is.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelIndex {
    /// The file, for errors.
    pub path: String,
    /// The pipeline's class, `PixArtAlphaPipeline` say.
    pub class_name: String,
    /// The parts that are present, in the file's order.
    pub components: Vec<Component>,
    /// The parts that the pipeline could have and comes without.
    pub absent: Vec<String>,
    /// Options of the pipeline that are not parts (`requires_safety_checker` and the like).
    pub options: Map<String, Value>,
    /// Defaults from our own block `headwater`, used where the user gives no value.
    pub defaults: Defaults,
}

/// One part of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The part and its folder: `transformer`.
    pub name: String,
    /// The Python library: `diffusers` or `transformers`.
    pub library: String,
    /// Its class.
    pub class_name: String,
}

/// Settings that suit a model, from the optional block `headwater` of its `model_index.json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Strength of classifier-free guidance.
    pub guidance_scale: Option<f64>,
    /// Denoising steps.
    pub num_inference_steps: Option<usize>,
    /// Height in pixels.
    pub height: Option<usize>,
    /// Width in pixels.
    pub width: Option<usize>,
    /// What the picture should not show.
    pub negative_prompt: Option<String>,
    /// How a picture is held to what a mask keeps of it.
    pub inpaint_method: Option<String>,
    /// Of a model on latents: how much noise a noisy picture's latents have, as a share of the picture's own. An encoder takes the rest off.
    pub restore_noise: Option<f64>,
}

/// Names of fields that are parts, whatever their value.
const PARTS: &[&str] =
    &["vae", "unet", "transformer", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"];

impl ModelIndex {
    /// Reads a model's `model_index.json`.
    ///
    /// # Errors
    /// When it is missing or not such an index.
    pub fn read(files: &ModelFiles) -> Result<Self, ModelError> {
        const FILE: &str = "model_index.json";
        let mut index = Self::from_json(&files.describe(FILE), &files.read(FILE)?)?;
        for part in files.given_apart() {
            // The class of the replacement is in its own configuration, but for transformers' classes, of which each part has one.
            let path = format!("{part}/config.json");
            let fields: Map<String, Value> = parse(&files.describe(&path), &files.read(&path)?)?;
            let class = fields.get("_class_name").and_then(Value::as_str);
            let Some(class) = class else { continue };
            match index.components.iter_mut().find(|component| component.name == part) {
                Some(component) => class.clone_into(&mut component.class_name),
                // An index may say that its pipeline comes without this part.
                None => {
                    let [name, library, class_name] = [part, "diffusers", class].map(str::to_owned);
                    index.components.push(Component { name, library, class_name });
                }
            }
        }
        Ok(index)
    }

    /// Parses a `model_index.json`; `path` names the file in errors.
    ///
    /// # Errors
    /// When it is not such an index.
    pub fn from_json(path: &str, text: &[u8]) -> Result<Self, ModelError> {
        let fields: Map<String, Value> = parse(path, text)?;
        let fault = |message: String| ModelError::new(path, message);
        let mut index = Self {
            path: path.to_owned(),
            class_name: String::new(),
            components: Vec::new(),
            absent: Vec::new(),
            options: Map::new(),
            defaults: Defaults::default(),
        };
        for (field, value) in fields {
            match (&*field, &value) {
                ("_class_name", Value::String(class)) => index.class_name.clone_from(class),
                ("headwater", _) => {
                    let Value::Object(own) = value else {
                        return Err(fault("the block \"headwater\" is no JSON object".into()));
                    };
                    index.defaults = serde_json::from_value(Value::Object(own.clone())).map_err(|_| {
                        let what = at_fault::<Defaults>(own);
                        fault(format!("the block \"headwater\" is not understood: {what}"))
                    })?;
                }
                (name, _) if name.starts_with('_') => {}
                (_, Value::Array(pair)) => match &pair[..] {
                    [Value::String(library), Value::String(class)] => index.components.push(Component {
                        name: field,
                        library: library.clone(),
                        class_name: class.clone(),
                    }),
                    [Value::Null, Value::Null] => index.absent.push(field),
                    _ => return Err(fault(format!("{field} is not a pair of library and class"))),
                },
                (name, Value::Null) if PARTS.contains(&name) => index.absent.push(field),
                _ => {
                    index.options.insert(field, value);
                }
            }
        }
        if index.class_name.is_empty() {
            return Err(fault("has no _class_name".into()));
        }
        Ok(index)
    }

    /// A part, if the pipeline has it.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    /// A part that must be present and of one of these classes.
    ///
    /// # Errors
    /// When it is absent or of another class.
    pub fn require(&self, name: &str, supported: &[&str]) -> Result<&Component, ModelError> {
        let names = supported.join(", ");
        match self.component(name) {
            Some(component) if supported.contains(&&*component.class_name) => Ok(component),
            Some(component) => {
                let class = &component.class_name;
                Err(ModelError::new(
                    &*self.path,
                    format!("{name} is {class}, which is not supported (supported: {names})"),
                ))
            }
            None => Err(ModelError::new(&*self.path, format!("has no {name} (supported: {names})"))),
        }
    }
}
