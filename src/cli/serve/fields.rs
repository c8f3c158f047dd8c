//! What a job may say: the flags of the image commands, by their names. The command line's own definitions say which there are, and check
//! their values, so that both accept the same.

use super::super::{Cli, Command};
use super::http::error::ApiError;
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, CommandFactory, FromArgMatches};
use serde_json::{Map, Value, json};
use std::error::Error as _;
use std::ffi::OsString;
use std::sync::OnceLock;

/// Commands that make images.
pub(super) const COMMANDS: [&str; 8] =
    ["generate", "img2img", "inpaint", "outpaint", "colorize", "upscale", "restore", "stroke"];

/// Flags that are the server's to decide: they name files, or a device, or are about a terminal.
const SERVERS: &[&str] = &[
    "batch",
    "checked",
    "config",
    "device",
    "dry_run",
    "dtype",
    "embedding",
    "force",
    "from",
    "help",
    "json",
    "lora",
    "lora_dir",
    "max_memory",
    "output",
    "quiet",
    "save_steps",
    "strict",
    "threads",
    "vae",
    "variant",
    "verbose",
    "version",
];

/// What a request says in other words: a model's id, a prompt, pictures.
const SAID_OTHERWISE: &[&str] = &["input", "mask", "model", "words"];

/// The name by which the command line knows the picture that was sent.
pub(super) const IMAGE: &str = "image";

/// The same of the mask.
pub(super) const MASK: &str = "mask";

/// Whether a flag's value is a number, a text or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Number,
    Text,
    Switch,
    Numbers,
}

/// One field of a command.
#[derive(Debug)]
pub(super) struct Field {
    name: String,
    flag: String,
    kind: Kind,
    help: String,
    default: Option<String>,
    values: Vec<String>,
}

/// The fields of a command; none of a command that makes no images.
pub(super) fn of(command: &str) -> Option<&'static [Field]> {
    static ALL: OnceLock<Vec<(String, Vec<Field>)>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut cli = Cli::command();
        // Fills in what is told apart only when it is built: names of values, say.
        cli.build();
        let own = |name: &&str| {
            let found = cli.find_subcommand(name)?;
            let fields = found.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(field);
            Some(((*name).to_owned(), fields.collect::<Vec<_>>()))
        };
        COMMANDS.iter().filter_map(own).collect()
    });
    all.iter().find(|(name, _)| name == command).map(|(_, fields)| fields.as_slice())
}

fn field(arg: &clap::Arg) -> Option<Field> {
    let name = arg.get_id().as_str();
    if SERVERS.contains(&name) || SAID_OTHERWISE.contains(&name) {
        return None;
    }
    let parser = arg.get_value_parser().type_id();
    let kind = match arg.get_action() {
        ArgAction::SetTrue => Kind::Switch,
        _ if arg.get_value_delimiter().is_some() => Kind::Numbers,
        _ if parser == std::any::TypeId::of::<u32>() || parser == std::any::TypeId::of::<usize>() => Kind::Integer,
        _ if parser == std::any::TypeId::of::<f64>() => Kind::Number,
        _ if name == "seed" => Kind::Integer,
        _ => Kind::Text,
    };
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
    Some(Field {
        name: name.to_owned(),
        flag: arg.get_long()?.to_owned(),
        kind,
        help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        default: (kind != Kind::Switch).then(|| defaults.collect::<Vec<_>>().join(",")).filter(|text| !text.is_empty()),
        values: arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect(),
    })
}

impl Field {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// As OpenAPI describes it.
    pub(super) fn schema(&self) -> Value {
        let (kind, number) = match self.kind {
            Kind::Integer => ("integer", true),
            Kind::Number => ("number", true),
            Kind::Text => ("string", false),
            Kind::Switch => ("boolean", false),
            Kind::Numbers => ("array", false),
        };
        let mut schema = json!({ "type": kind, "description": self.help });
        if self.kind == Kind::Numbers {
            schema["items"] = json!({ "type": "number" });
        }
        if !self.values.is_empty() && self.kind == Kind::Text {
            schema["enum"] = json!(self.values);
        }
        if let Some(default) = &self.default {
            let parsed = if number { serde_json::from_str(default).ok() } else { None };
            schema["default"] = parsed.unwrap_or_else(|| json!(default));
        }
        schema
    }

    /// The flag with a value; nothing where that says nothing.
    fn argument(&self, value: &Value) -> Result<Option<String>, ApiError> {
        let flag = &self.flag;
        let text = match (value, self.kind) {
            (Value::Null, _) | (Value::Bool(false), Kind::Switch) => return Ok(None),
            (Value::Bool(true), Kind::Switch) => return Ok(Some(format!("--{flag}"))),
            (_, Kind::Switch) => return Err(ApiError::field(&self.name, "must be true or false")),
            (Value::Array(list), Kind::Numbers) => {
                if list.is_empty() {
                    return Ok(None);
                }
                let numbers = list.iter().map(|item| item.as_number().map(ToString::to_string));
                let numbers: Option<Vec<String>> = numbers.collect();
                numbers.ok_or_else(|| ApiError::field(&self.name, "must be a list of numbers"))?.join(",")
            }
            (Value::String(text), _) => text.clone(),
            (Value::Number(number), _) => number.to_string(),
            _ => return Err(ApiError::field(&self.name, "has a value of another kind than it takes")),
        };
        Ok(Some(format!("--{flag}={text}")))
    }
}

/// What a request says in words that are not flags.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) command: &'a str,
    /// A model's id.
    pub(super) model: &'a str,
    pub(super) dtype: &'a str,
    pub(super) prompt: Option<&'a str>,
    pub(super) has_image: bool,
    /// `image` stands for the picture that was sent; or a box, or `alpha`.
    pub(super) mask: Option<&'a str>,
}

/// Parses fields as the command line parses flags.
pub(super) fn parse(said: &Said<'_>, fields: &Map<String, Value>) -> Result<Command, ApiError> {
    let Some(known) = of(said.command) else {
        return Err(ApiError::field("command", &format!("must be one of {}", COMMANDS.join(", "))));
    };
    let mut arguments: Vec<OsString> = vec!["headwater".into(), said.command.into()];
    // What a person at a terminal is told is nothing for the server's own.
    arguments.push("--quiet".into());
    arguments.push(format!("--model={}", said.model).into());
    arguments.push(format!("--dtype={}", said.dtype).into());
    for (name, value) in fields {
        let Some(field) = known.iter().find(|field| field.name == *name) else {
            return Err(unknown(name, said.command, known));
        };
        arguments.extend(field.argument(value)?.map(OsString::from));
    }
    let takes_image = said.command != "generate";
    if takes_image && !said.has_image {
        return Err(ApiError::field("image", &format!("is missing: {} starts from a picture", said.command)));
    }
    if !takes_image && said.has_image {
        return Err(ApiError::field("image", "is not for generate: img2img, inpaint and others start from a picture"));
    }
    if let Some(mask) = said.mask {
        if !["inpaint", "colorize"].contains(&said.command) {
            return Err(ApiError::field("mask", &format!("is not for {}", said.command)));
        }
        arguments.push(format!("--mask={mask}").into());
    }
    arguments.push("--".into());
    arguments.extend(takes_image.then(|| IMAGE.into()));
    arguments.extend(said.prompt.map(OsString::from));
    let matches = Cli::command().try_get_matches_from(arguments).map_err(|error| refused(&error, known))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| refused(&error, known))?;
    Ok(cli.command)
}

fn unknown(name: &str, command: &str, known: &[Field]) -> ApiError {
    if SERVERS.contains(&name) {
        return ApiError::field(name, "is for the command line alone: the server decides it");
    }
    let near = known.iter().map(|field| (strsim::damerau_levenshtein(name, &field.name), &field.name)).min();
    let hint = near
        .filter(|(distance, _)| *distance <= 3)
        .map_or(String::new(), |(_, near)| format!("; did you mean {near}?"));
    ApiError::field(name, &format!("is no field of {command}{hint}"))
}

/// What is wrong with the flags, as a sentence about the fields.
fn refused(error: &clap::Error, known: &[Field]) -> ApiError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let name = |text: &str| {
        let flag = text.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default().to_owned();
        let field = known.iter().find(|field| field.flag == flag).map(|field| field.name.clone());
        field.unwrap_or_else(|| flag.trim_matches(['<', '>']).replace('-', "_").to_lowercase())
    };
    let Some(arg) = text(ContextKind::InvalidArg) else {
        let first = error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        return ApiError::invalid(None, first);
    };
    let field = name(&arg);
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let message = if let Some(why) = error.source() {
        format!("{value:?} is refused: {why}")
    } else if let Some(other) = text(ContextKind::PriorArg) {
        format!("cannot be given together with {}", name(&other))
    } else if let Some(valid) = text(ContextKind::ValidValue) {
        format!("{value:?} is none of {valid}")
    } else if error.kind() == clap::error::ErrorKind::MissingRequiredArgument {
        "is missing".to_owned()
    } else {
        format!("{value:?} is refused")
    };
    ApiError::field(&field, &message)
}
