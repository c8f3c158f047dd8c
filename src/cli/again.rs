//! `generate --from PICTURE`: the command line that made a picture, told from what the picture says of itself.

use super::error::CliError;
use super::{Cli, Command, generate, hints, picture_file, warnings};
use clap::{CommandFactory, FromArgMatches};
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;

/// Parses the command line; with `--from`, again with what the picture says before what was typed, which overrides it.
pub(super) fn parse() -> Result<Cli, CliError> {
    let mut command = Cli::command();
    let cli = command.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        Ok((cli, matches))
    });
    let (cli, matches) = cli.unwrap_or_else(|error| {
        let arguments: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        // Printed as clap does it; for help and the version, too, which are errors to it.
        hints::explained(error, &command, &arguments).exit()
    });
    hints::check_order(&matches)?;
    if matches.subcommand().and_then(|(_, own)| own.try_get_one::<bool>("strict").ok().flatten()) == Some(&true) {
        warnings::be_strict();
    }
    let Command::Generate(typed) = &cli.command else { return Ok(cli) };
    let Some(picture) = &typed.from else { return Ok(cli) };
    let told = told_by(picture, typed)?;
    let command = Cli::command().mut_subcommand("generate", |generate| generate.args_override_self(true));
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    // Behind the program's and the command's name.
    arguments.splice(2..2, told.into_iter().map(OsString::from));
    // clap prints what is wrong and ends the program, as it does for what is typed.
    let matches = command.get_matches_from(arguments);
    Cli::from_arg_matches(&matches).map_err(|error| CliError::Usage(error.to_string()))
}

/// The flags and words that a picture tells.
fn told_by(picture: &Path, typed: &generate::Args) -> Result<Vec<String>, CliError> {
    let told = told_in(&picture_file::read_info(picture)?.texts);
    let (flags, words) =
        told.map_err(|why| CliError::Failed(format!("{} cannot be made again: {why}", picture.display())))?;
    // Of flags that exclude each other those that were typed count.
    let image = &typed.image;
    let typed_levels = !(image.sigmas.is_empty() && image.timesteps.is_empty());
    let typed_count = image.steps.is_some() || image.schedule.is_some();
    let excluded = |name: &str| match name {
        "steps" | "schedule" => typed_levels,
        "sigmas" | "timesteps" => typed_levels || typed_count,
        _ => false,
    };
    let kept = flags.iter().filter(|(name, _)| !excluded(name));
    let mut arguments: Vec<String> = kept.map(|(name, value)| format!("--{name}={value}")).collect();
    if typed.words.is_empty() {
        arguments.extend((!words.is_empty()).then_some(words));
    }
    Ok(arguments)
}

/// Flags, name and value, and the prompt.
type Told = Result<(Vec<(String, String)>, String), String>;

/// Reads the texts of a picture, by keyword.
fn told_in(texts: &[(String, String)]) -> Told {
    let text = |keyword: &str| texts.iter().find(|(own, _)| own == keyword).map(|(_, text)| text.as_str());
    match (text("headwater"), text("parameters")) {
        (Some(json), _) => by_headwater(json),
        (None, Some(parameters)) => by_a1111(parameters),
        (None, None) => Err("it does not say how it was made".into()),
    }
}

/// What [`settings_json`](super::settings::settings_json) wrote.
fn by_headwater(json: &str) -> Told {
    let settings: Value = serde_json::from_str(json).map_err(|_| "its settings are damaged".to_owned())?;
    let text = |key: &str| match &settings[key] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match text("command").as_deref() {
        Some("generate") => {}
        Some(command) => return Err(format!("it was made of other pictures by headwater {command}")),
        None => return Err("its settings are damaged".into()),
    }
    let mut flags: Vec<(String, String)> = Vec::new();
    let mut flag = |name: &str, value: Option<String>| flags.extend(value.map(|value| (name.to_owned(), value)));
    for (key, name) in [
        ("model", "model"),
        ("negative_prompt", "negative-prompt"),
        ("width", "width"),
        ("height", "height"),
        ("sampler", "sampler"),
        ("guidance", "guidance"),
        ("guidance_interval", "guidance-interval"),
        ("step_cache", "step-cache"),
        ("seed", "seed"),
        ("rng", "rng"),
        ("dtype", "dtype"),
        ("vae", "vae"),
        ("variant", "variant"),
        ("config", "config"),
        ("eta", "eta"),
        ("clip_skip", "clip-skip"),
        ("prompt_syntax", "prompt-syntax"),
        ("class_label", "class-label"),
    ] {
        flag(name, text(key));
    }
    let numbers = |key: &str| {
        let list = settings[key].as_array()?;
        Some(list.iter().map(Value::to_string).collect::<Vec<_>>().join(","))
    };
    match (numbers("sigmas"), numbers("timesteps")) {
        (None, None) => {
            flag("steps", text("steps"));
            flag("schedule", text("schedule"));
        }
        (sigmas, timesteps) => {
            flag("sigmas", sigmas);
            flag("timesteps", timesteps);
        }
    }
    let files = |key: &str, second: &str| -> Vec<String> {
        let one = |entry: &Value| {
            let file = entry["file"].as_str().unwrap_or_default();
            match &entry[second] {
                Value::Null => file.to_owned(),
                Value::String(text) => format!("{file}:{text}"),
                other => format!("{file}:{other}"),
            }
        };
        settings[key].as_array().into_iter().flatten().map(one).collect()
    };
    files("loras", "weight").into_iter().for_each(|lora| flag("lora", Some(lora)));
    files("embeddings", "token").into_iter().for_each(|word| flag("embedding", Some(word)));
    Ok((flags, text("prompt").unwrap_or_default()))
}

/// The text that AUTOMATIC1111's web UI writes: the prompt, the negative prompt behind its mark, and a last line of fields.
fn by_a1111(parameters: &str) -> Told {
    let (prompts, fields) = match parameters.rfind("\nSteps: ") {
        Some(at) => (&parameters[..at], &parameters[at + 1..]),
        None if parameters.starts_with("Steps: ") => ("", parameters),
        None => return Err("its parameters have no line that begins with Steps".into()),
    };
    let (prompt, negative) = prompts.split_once("\nNegative prompt: ").unwrap_or((prompts, ""));
    let fields = fields_of(fields);
    let field = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    if field("Denoising strength").is_some() && field("Hires upscale").is_none() {
        return Err("it was made of another picture, which it does not hold".into());
    }
    let mut flags: Vec<(String, String)> = Vec::new();
    let mut flag = |name: &str, value: Option<String>| flags.extend(value.map(|value| (name.to_owned(), value)));
    flag("negative-prompt", (!negative.is_empty()).then(|| negative.to_owned()));
    for (name, own) in [
        ("steps", "Steps"),
        ("sampler", "Sampler"),
        ("schedule", "Schedule type"),
        ("guidance", "CFG scale"),
        ("seed", "Seed"),
        ("eta", "Eta"),
        ("class-label", "Class"),
    ] {
        flag(name, field(own));
    }
    if let Some((width, height)) = field("Size").as_deref().and_then(|size| size.split_once('x')) {
        flag("width", Some(width.to_owned()));
        flag("height", Some(height.to_owned()));
    }
    // There 1 is the last layer.
    let skip = field("Clip skip").and_then(|skip| skip.parse::<u32>().ok());
    flag("clip-skip", skip.map(|skip| skip.saturating_sub(1).to_string()));
    // Its own default generator is CUDA's.
    flag(
        "rng",
        Some(match field("RNG").as_deref() {
            Some("CPU") => "torch-cpu".to_owned(),
            Some("Philox") => "philox".to_owned(),
            _ => "torch-cuda".to_owned(),
        }),
    );
    // Theirs is a name in their folder of models; ours is what --model takes.
    let is_ours = field("Version").is_some_and(|version| version.starts_with("headwater"));
    flag("model", field("Model").filter(|_| is_ours));
    Ok((flags, prompt.to_owned()))
}

/// `Name: value, Name: "a, quoted value", …`
fn fields_of(line: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    while let Some((name, after)) = rest.split_once(": ") {
        let (value, next) = if after.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
            match values.next() {
                Some(Ok(value)) => (value, &after[values.byte_offset()..]),
                _ => after.split_once(", ").map_or((after.to_owned(), ""), |(value, next)| (value.to_owned(), next)),
            }
        } else {
            after.split_once(", ").map_or((after.to_owned(), ""), |(value, next)| (value.to_owned(), next))
        };
        fields.push((name.trim().to_owned(), value));
        rest = next.trim_start_matches([',', ' ']);
    }
    fields
}

/// What a picture tells, as a command line that is parsed; for fuzzing.
pub(super) fn try_texts(texts: &[(String, String)]) {
    let Ok((flags, words)) = told_in(texts) else { return };
    let flags = flags.iter().map(|(name, value)| format!("--{name}={value}"));
    super::try_arguments(flags.chain(std::iter::once(words)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(told: Told) -> (Vec<(String, String)>, String) {
        let (mut flags, prompt) = told.expect("it tells");
        flags.sort();
        (flags, prompt)
    }

    #[test]
    fn what_the_web_ui_writes_is_understood() {
        let parameters = "a (red:1.2) cat,\non a mat\nNegative prompt: dog, \"bird\"\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, \
                          CFG scale: 7.5, Seed: 42, Size: 512x768, Model hash: abc, Model: some_model, Clip skip: 2, RNG: CPU, \
                          Lora hashes: \"style: 1a, other: 2b\", Version: v1.10.1";
        let (flags, prompt) = sorted(by_a1111(parameters));
        assert_eq!(prompt, "a (red:1.2) cat,\non a mat");
        let wanted = [
            ("clip-skip", "1"),
            ("guidance", "7.5"),
            ("height", "768"),
            ("negative-prompt", "dog, \"bird\""),
            ("rng", "torch-cpu"),
            ("sampler", "DPM++ 2M"),
            ("schedule", "Karras"),
            ("seed", "42"),
            ("steps", "20"),
            ("width", "512"),
        ];
        assert_eq!(flags, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn pictures_of_pictures_and_of_nothing_are_refused() {
        for (told, part) in [
            (by_a1111("a cat\nSteps: 3, Denoising strength: 0.5"), "another picture"),
            (by_a1111("a cat"), "no line that begins with Steps"),
            (by_headwater(r#"{"command": "inpaint"}"#), "headwater inpaint"),
            (by_headwater("{"), "damaged"),
        ] {
            let why = told.expect_err(part);
            assert!(why.contains(part), "{why}");
        }
    }
}
