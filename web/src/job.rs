//! A page's job: fields by the names that the server and the command line have for them.

use pipelines::{Colorize, ImageToImage, Inpaint, Request, Restore, RgbImage, Stroke, Task, Upscale};
use scheduler::Steps;
use serde_json::{Map, Value};
use std::str::FromStr;

/// The pictures of a job.
#[derive(Debug, Default)]
pub struct Pictures {
    /// What is edited.
    pub image: Option<RgbImage>,
    /// White where it is made anew.
    pub mask: Option<RgbImage>,
}

/// Fields that are the page's own: which model, how many images, and what is told meanwhile.
const PAGES: &[&str] = &["command", "model", "count", "previews", "image", "mask"];

/// What a job asks of a pipeline.
///
/// # Errors
/// A sentence that names the field, when it is unknown or its value means nothing.
pub fn request(fields: &Map<String, Value>, pictures: Pictures) -> Result<Request, String> {
    let mut rest: Map<String, Value> = fields
        .iter()
        .filter(|(name, _)| !PAGES.contains(&name.as_str()))
        .map(|(a, b)| (a.clone(), b.clone()))
        .collect();
    let command = fields.get("command").and_then(Value::as_str).unwrap_or("generate");
    let mut take = Fields(&mut rest);
    let mut request = Request {
        prompt: take.text("prompt")?.unwrap_or_default(),
        negative_prompt: take.text("negative_prompt")?,
        width: take.number("width")?,
        height: take.number("height")?,
        steps: take.number("steps")?.map(Steps::Count),
        sampler: take.parsed("sampler")?,
        schedule: take.parsed("schedule")?,
        eta: take.number("eta")?,
        guidance_scale: take.number("guidance")?,
        seed: take.number("seed")?.unwrap_or(0),
        rng: take.parsed("rng")?.unwrap_or_default(),
        class_label: take.number("class_label")?,
        ..Request::default()
    };
    request.task = task(command, &mut take, pictures)?;
    match rest.keys().next() {
        Some(name) => Err(format!("{name} is not possible in a browser with {command}")),
        None => Ok(request),
    }
}

fn task(command: &str, take: &mut Fields<'_>, pictures: Pictures) -> Result<Task, String> {
    let Pictures { image, mask } = pictures;
    if command == "generate" {
        return Ok(Task::default());
    }
    let image = image.ok_or_else(|| format!("{command} needs a picture"))?;
    let strength = take.number("strength")?;
    Ok(match command {
        "img2img" => ImageToImage { image, strength }.into(),
        "inpaint" => {
            let mask = mask.ok_or("inpaint needs a mask: paint over what is to be made anew")?;
            masked(Inpaint { strength, ..Inpaint::new(image, mask) }, take)?.into()
        }
        "outpaint" => {
            let mut sides = [0; 4];
            for (side, name) in sides.iter_mut().zip(["left", "right", "top", "bottom"]) {
                *side = take.number(name)?.unwrap_or(0);
            }
            if sides.iter().sum::<usize>() == 0 || sides.iter().any(|side| *side > 4096) {
                return Err("outpaint needs 1 to 4096 pixels on a side at least: left, right, top or bottom".into());
            }
            masked(Inpaint { strength, ..Inpaint::around(&image, sides) }, take)?.into()
        }
        "colorize" => Colorize { mask, ..Colorize::new(image) }.into(),
        "upscale" => Upscale { scale: take.number("scale")?, ..Upscale::new(image) }.into(),
        "restore" => Restore { sigma: take.number("sigma")?, image }.into(),
        "stroke" => Stroke { sigma: take.number("sigma")?, image }.into(),
        _ => return Err(format!("{command} is no command that a browser knows")),
    })
}

fn masked(task: Inpaint, take: &mut Fields<'_>) -> Result<Inpaint, String> {
    let (grow, blur) = (take.number("mask_grow")?, take.number("mask_blur")?);
    let method = take.parsed("method")?;
    Ok(Inpaint { grow: grow.unwrap_or(0), blur: blur.unwrap_or(0), method: method.or(task.method), ..task })
}

/// Fields that nobody has read yet.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    /// The text of a field; a number is a text, too. None where it is missing.
    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(format!("{name} must be a text or a number, not {other}")),
        }
    }

    /// A number, given as one or as a text: seeds have more digits than a script's numbers.
    fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("{name} must be a number, not {text:?}"))
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|error| format!("{name}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, String> {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { panic!("{text}") };
        let picture = || Some(RgbImage { width: 1, height: 1, pixels: vec![0; 3] });
        request(&fields, Pictures { image: picture(), mask: picture() })
    }

    #[test]
    fn fields_become_a_request() {
        let text = r#"{"command": "generate", "model": "icons-64", "prompt": "a red heart", "seed": "18446744073709551615", "steps": 4,
            "guidance": 2.5, "sampler": "euler", "count": 2, "previews": "both"}"#;
        let request = read(text).expect("it makes sense");
        assert_eq!((&*request.prompt, request.seed, request.guidance_scale), ("a red heart", u64::MAX, Some(2.5)));
        assert!(matches!(request.steps, Some(Steps::Count(4))));
        for command in ["img2img", "inpaint", "outpaint", "colorize", "upscale", "restore", "stroke"] {
            let text = format!(r#"{{"command": "{command}", "left": 8, "scale": 2, "sigma": 0.5}}"#);
            let Ok(Value::Object(mut fields)) = serde_json::from_str(&text) else { panic!("{text}") };
            if command != "outpaint" {
                fields.shift_remove("left");
            }
            if command != "upscale" {
                fields.shift_remove("scale");
            }
            if !["restore", "stroke"].contains(&command) {
                fields.shift_remove("sigma");
            }
            assert!(read(&Value::Object(fields).to_string()).is_ok(), "{command}");
        }
    }

    #[test]
    fn what_means_nothing_is_said() {
        for (text, fragment) in [
            (r#"{"steps": "many"}"#, "steps must be a number"),
            (r#"{"sampler": "nobody's"}"#, "sampler: "),
            (r#"{"lora": "x"}"#, "lora is not possible in a browser with generate"),
            (r#"{"prompt": [1]}"#, "prompt must be a text"),
            (r#"{"command": "dance"}"#, "dance is no command"),
            (r#"{"command": "outpaint"}"#, "outpaint needs"),
            (r#"{"seed": -1}"#, "seed must be a number"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(fragment), "{text}: {error}");
        }
    }
}
