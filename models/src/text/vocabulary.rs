//! What a model says it draws.

use crate::checkpoint::ModelFiles;
use crate::config::parse;
use crate::error::ModelError;
use serde::Deserialize;
use serde_json::{Map, Value};

const FILE: &str = "vocabulary.json";

/// What a model draws, by its own file `vocabulary.json`: small models know a list of things, and whoever types a prompt wants to see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vocabulary {
    /// (kind of thing, names), in the file's order.
    pub groups: Vec<(String, Vec<String>)>,
    /// Styles that a prompt may name.
    pub styles: Vec<String>,
    /// Colours that a thing may be given.
    pub colours: Vec<String>,
}

/// The file. Its groups keep their order.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    groups: Map<String, Value>,
    #[serde(default)]
    styles: Vec<String>,
    #[serde(default)]
    colours: Vec<String>,
}

impl Vocabulary {
    /// That of a model; none where its files do not say.
    ///
    /// # Errors
    /// When the file cannot be read or is no such list.
    pub fn read(files: &ModelFiles) -> Result<Option<Self>, ModelError> {
        if !files.exists(FILE) {
            return Ok(None);
        }
        let path = files.describe(FILE);
        let File { groups, styles, colours } = parse(&path, &files.read(FILE)?)?;
        let names = |(group, names): (String, Value)| match serde_json::from_value::<Vec<String>>(names) {
            Ok(names) => Ok((group, names)),
            Err(_) => Err(ModelError::new(&*path, format!("the group {group} is no list of names"))),
        };
        let groups = groups.into_iter().map(names).collect::<Result<_, _>>()?;
        Ok(Some(Self { groups, styles, colours }))
    }

    /// Whether a word, in small letters, is part of any name in it.
    #[must_use]
    pub fn has_word(&self, word: &str) -> bool {
        let names = self.groups.iter().flat_map(|(_, names)| names).chain(&self.styles).chain(&self.colours);
        names.into_iter().any(|name| name.split(|c: char| !c.is_alphanumeric()).any(|own| own == word))
    }
}
