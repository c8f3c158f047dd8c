//! Typed access to a configuration's fields, with each class's own defaults.

use std::collections::BTreeMap;
use std::fmt;

use super::classes::{Class, Default};
use crate::error::Error;

/// A JSON value, as far as scheduler configurations go.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// null
    Null,
    /// true, false
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Field>),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "\"{value}\""),
            Self::List(values) => write!(f, "a list of {} values", values.len()),
        }
    }
}

/// Reads fields under the rules of one class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    class: &'static Class,
    fields: &'a BTreeMap<String, Field>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(class: &'static Class, fields: &'a BTreeMap<String, Field>) -> Self {
        Self { class, fields }
    }

    /// The class whose rules apply.
    pub(super) fn class(&self) -> &'static Class {
        self.class
    }

    /// Whether the class has this field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.class.default(name).is_some()
    }

    pub(super) fn number(&self, name: &str) -> Result<f64, Error> {
        match self.value(name) {
            Some(field) => as_number(name, field),
            None => match self.class.default(name) {
                Some(Default::Number(value)) => Ok(value),
                _ => Err(wrong(name, "a number", &Field::Null)),
            },
        }
    }

    /// A whole number. Tables are made this long and loops run this often, so it is bounded: training schedules have a thousand steps.
    pub(super) fn count(&self, name: &str) -> Result<usize, Error> {
        let count = as_count(name, self.number(name)?)?;
        if count > 1_000_000 {
            return Err(self.unsupported(name, "it must be at most 1000000"));
        }
        Ok(count)
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.value(name) {
            Some(field) => as_flag(name, field),
            None => Ok(matches!(self.class.default(name), Some(Default::Flag(true)))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Error> {
        match self.optional_text(name)? {
            Some(text) => Ok(text),
            None => Err(wrong(name, "a text", &Field::Null)),
        }
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<String>, Error> {
        match self.value(name) {
            Some(field) => as_text(name, field),
            None => Ok(match self.class.default(name) {
                Some(Default::Text(value)) => Some(value.to_owned()),
                _ => None,
            }),
        }
    }

    /// Whether the field is absent or null.
    pub(super) fn is_null(&self, name: &str) -> bool {
        matches!(self.fields.get(name), None | Some(Field::Null))
    }

    /// A number that may be null or absent. Read even where the class has no such field: diffusers keeps a file's other
    /// fields in `config`, and its schedulers look for `sigma_min` and `sigma_max` there.
    pub(super) fn hidden_number(&self, name: &str) -> Result<Option<f64>, Error> {
        match self.fields.get(name) {
            None | Some(Field::Null) => Ok(None),
            Some(field) => as_number(name, field).map(Some),
        }
    }

    /// A flag read even where the class has no such field; false if absent.
    pub(super) fn hidden_flag(&self, name: &str) -> Result<bool, Error> {
        self.fields.get(name).map_or(Ok(false), |field| as_flag(name, field))
    }

    /// A text read even where the class has no such field.
    pub(super) fn hidden_text(&self, name: &str) -> Result<Option<String>, Error> {
        self.fields.get(name).map_or(Ok(None), |field| as_text(name, field))
    }

    /// A list of numbers, if there is one.
    pub(super) fn numbers(&self, name: &str) -> Result<Option<Vec<f64>>, Error> {
        match self.value(name) {
            None | Some(Field::Null) => Ok(None),
            Some(Field::List(values)) => values.iter().map(|v| as_number(name, v)).collect::<Result<_, _>>().map(Some),
            Some(other) => Err(wrong(name, "a list of numbers", other)),
        }
    }

    /// The error for a value of this field that is not supported.
    pub(super) fn unsupported(&self, name: &str, reason: &str) -> Error {
        let value = match (self.fields.get(name), self.class.default(name)) {
            (Some(field), _) => field.to_string(),
            (None, Some(default)) => format!("{default} (the default)"),
            (None, None) => "nothing".to_owned(),
        };
        let (class, field) = (self.class.name.to_owned(), name.to_owned());
        Error::Unsupported { class, field, value, reason: reason.to_owned() }
    }

    fn value(&self, name: &str) -> Option<&'a Field> {
        // `from_config` does not pass on a field that the class does not have.
        if self.has(name) { self.fields.get(name) } else { None }
    }
}

fn wrong(name: &str, expected: &'static str, found: &Field) -> Error {
    Error::FieldType { field: name.to_owned(), expected, found: found.to_string() }
}

fn as_number(name: &str, field: &Field) -> Result<f64, Error> {
    match field {
        Field::Number(value) => Ok(*value),
        // Python's json writes infinities, which JSON cannot hold; files carry them for lambda_min_clipped.
        Field::Text(text) if text == "-Infinity" || text == "-inf" => Ok(f64::NEG_INFINITY),
        Field::Text(text) if text == "Infinity" || text == "inf" => Ok(f64::INFINITY),
        other => Err(wrong(name, "a number", other)),
    }
}

fn as_count(name: &str, value: f64) -> Result<usize, Error> {
    if value.fract() == 0.0 && (0.0..1e9).contains(&value) {
        Ok(value as usize)
    } else {
        Err(wrong(name, "a whole number", &Field::Number(value)))
    }
}

fn as_flag(name: &str, field: &Field) -> Result<bool, Error> {
    match field {
        Field::Bool(value) => Ok(*value),
        Field::Null => Ok(false),
        other => Err(wrong(name, "true or false", other)),
    }
}

fn as_text(name: &str, field: &Field) -> Result<Option<String>, Error> {
    match field {
        Field::Text(text) => Ok(Some(text.clone())),
        Field::Null => Ok(None),
        other => Err(wrong(name, "a text", other)),
    }
}
