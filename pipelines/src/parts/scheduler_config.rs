//! A checkpoint's scheduler_config.json, handed to the scheduler crate (which reads no JSON itself).

use crate::error::PipelineError;
use models::ModelFiles;
use scheduler::{Field, SchedulerConfig};
use serde_json::Value;

/// Where diffusers' folders keep it.
const PATH: &str = "scheduler/scheduler_config.json";

/// Where the first ones kept it.
const FLAT: &str = "scheduler_config.json";

/// Reads the checkpoint's scheduler configuration.
///
/// # Errors
/// When the file is missing or no JSON object, or has a class or field that cannot be honoured.
pub(crate) fn own(files: &ModelFiles) -> Result<SchedulerConfig, PipelineError> {
    // The first checkpoints of diffusers have no folders; it still reads them.
    read(files, if !files.exists(PATH) && files.exists(FLAT) { FLAT } else { PATH })
}

/// The configuration by which an upscaler puts noise over the picture.
pub(crate) fn low_res(files: &ModelFiles) -> Result<SchedulerConfig, PipelineError> {
    read(files, "low_res_scheduler/scheduler_config.json")
}

fn read(files: &ModelFiles, path: &str) -> Result<SchedulerConfig, PipelineError> {
    let text = files.read(path)?;
    parse(&files.describe(path), &String::from_utf8_lossy(&text))
}

fn parse(path: &str, text: &str) -> Result<SchedulerConfig, PipelineError> {
    let broken = |what: &dyn std::fmt::Display| PipelineError::Checkpoint(format!("{path}: {what}"));
    let object = models::json_object(path, &quote_infinities(text))?;
    let fields = object.iter().map(|(name, value)| Some((name.clone(), field(value)?))).collect::<Option<Vec<_>>>();
    let fields = fields.ok_or_else(|| broken(&"a field holds an object, which no scheduler has"))?;
    SchedulerConfig::new(fields).map_err(|error| broken(&error))
}

/// Python writes infinities bare, which is not JSON; the scheduler crate takes them as text.
fn quote_infinities(text: &str) -> String {
    // Every second piece between quotation marks is a string; a quoted mark inside one does not occur in field names or
    // values of schedulers, and would only leave the text as it is.
    let pieces = text.split('"').enumerate().map(|(i, piece)| {
        if i % 2 == 1 || !piece.contains("Infinity") {
            return piece.to_owned();
        }
        piece.replace("-Infinity", "\u{1}").replace("Infinity", "\"Infinity\"").replace('\u{1}', "\"-Infinity\"")
    });
    pieces.collect::<Vec<_>>().join("\"")
}

fn field(value: &Value) -> Option<Field> {
    Some(match value {
        Value::Null => Field::Null,
        Value::Bool(value) => Field::Bool(*value),
        Value::Number(value) => Field::Number(value.as_f64()?),
        Value::String(value) => Field::Text(value.clone()),
        Value::Array(values) => Field::List(values.iter().map(field).collect::<Option<_>>()?),
        Value::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_reach_the_scheduler() {
        let config = parse(
            PATH,
            r#"{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.30", "beta_start": 0.0001,
                "trained_betas": null, "lambda_min_clipped": -Infinity, "use_karras_sigmas": true}"#,
        )
        .expect("a valid configuration");
        assert_eq!(config.class(), "DPMSolverMultistepScheduler");
    }

    #[test]
    fn bare_infinities_become_text() {
        let text = r#"{"a": -Infinity, "b": Infinity, "c": "-Infinity", "Infinity": 1}"#;
        let want = r#"{"a": "-Infinity", "b": "Infinity", "c": "-Infinity", "Infinity": 1}"#;
        assert_eq!(quote_infinities(text), want);
    }

    #[test]
    fn bad_files_are_one_sentence() {
        for (text, part) in [
            ("[]", "not a JSON object"),
            ("{", "is cut off at line 1, column 1"),
            (r#"{"_class_name": "NoSuchScheduler"}"#, "NoSuchScheduler"),
            (r#"{"_class_name": "DDIMScheduler", "beta_start": {}}"#, "object"),
        ] {
            let message = parse(PATH, text).expect_err(text).to_string();
            assert!(message.contains(part) && !message.contains('\n') && !message.contains("EOF"), "{message}");
        }
    }
}
