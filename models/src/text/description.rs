//! What is wrong with a `tokenizer.json`, where the library that reads it only says that it is none of the things it knows.

use crate::config::brief;
use crate::contain::contain;
use serde_json::{Map, Value};
use std::collections::HashSet;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

/// The kinds of models.
const MODELS: &[&str] = &["BPE", "WordPiece", "WordLevel", "Unigram"];

/// The end of a sentence about a description that the library does not read.
pub(crate) fn at_fault(description: &Map<String, Value>) -> String {
    let Some(model) = description.get("model") else { return "it lacks a model".into() };
    let Value::Object(fields) = model else { return "its model is not a JSON object".into() };
    if let Some(kind) = fields.get("type").filter(|kind| !MODELS.iter().any(|known| *kind == known)) {
        let (kind, known) = (brief(&kind.to_string()), MODELS.join(", "));
        return format!("its model is of the type {kind}, which is not supported (supported: {known})");
    }
    if let Some(why) = merges_at_fault(fields) {
        return why;
    }
    type Reads = fn(Value) -> bool;
    let parts: [(&str, Reads); 5] = [
        ("normalizer", |part| serde_json::from_value::<NormalizerWrapper>(part).is_ok()),
        ("pre_tokenizer", |part| serde_json::from_value::<PreTokenizerWrapper>(part).is_ok()),
        ("post_processor", |part| serde_json::from_value::<PostProcessorWrapper>(part).is_ok()),
        ("decoder", |part| serde_json::from_value::<DecoderWrapper>(part).is_ok()),
        ("model", |part| serde_json::from_value::<ModelWrapper>(part).is_ok()),
    ];
    for (name, reads) in parts {
        let Some(part) = description.get(name).filter(|part| !part.is_null()) else { continue };
        // What the library panics on is at fault, too.
        if contain(|| reads(part.clone())) != Some(true) {
            let kind =
                part.get("type").map_or_else(String::new, |kind| format!(" of the type {}", brief(&kind.to_string())));
            return format!("its {name}{kind} has fields that are missing or of another kind than they may be");
        }
    }
    if let Some(tokens) = description.get("added_tokens") {
        let Some(tokens) = tokens.as_array() else { return "its added_tokens are not a list".into() };
        let is_token = |token: &Value| {
            token.get("id").is_some_and(Value::is_u64) && serde_json::from_value::<AddedToken>(token.clone()).is_ok()
        };
        if let Some(token) = tokens.iter().find(|token| !is_token(token)) {
            return format!("its added token {} lacks an id or what belongs to it", brief(&token.to_string()));
        }
    }
    "its parts do not fit each other".into()
}

/// What is wrong with the merges of a BPE model.
fn merges_at_fault(model: &Map<String, Value>) -> Option<String> {
    let (vocabulary, merges) = (model.get("vocab")?.as_object()?, model.get("merges")?.as_array()?);
    let tokens: HashSet<&str> = vocabulary.keys().map(String::as_str).collect();
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    for (i, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match &pair[..] {
                [Value::String(first), Value::String(second)] => Some((&**first, &**second)),
                _ => None,
            },
            _ => None,
        };
        let number = i + 1;
        let Some((first, second)) = pair.filter(|(_, second)| merge.is_array() || !second.contains(' ')) else {
            return Some(format!("its merge {number} is not two tokens: {}", brief(&merge.to_string())));
        };
        let lacks =
            |token: &str| format!("its merge {number} is of the token {}, which the vocabulary lacks", brief(token));
        if let Some(token) = [first, second].into_iter().find(|token| !tokens.contains(token)) {
            return Some(lacks(token));
        }
        let Some(rest) = second.get(prefix.len()..) else {
            return Some(format!(
                "its merge {number} goes on with {}, which does not begin with {prefix}",
                brief(second)
            ));
        };
        let joined = format!("{first}{rest}");
        if !tokens.contains(&*joined) {
            return Some(lacks(&joined));
        }
    }
    None
}
