//! SentencePiece's model file (Kudo & Richardson 2018) in the form that T5 uses: a protocol buffer with pieces, scores
//! and a normalizer.

use crate::error::ModelError;
use serde_json::{Value, json};

/// Kinds of pieces, by the numbers of `sentencepiece_model.proto`.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;

/// T5's tokenizer in the form of a `tokenizer.json`: words begin with U+2581, a unigram model splits them, `</s>` ends
/// the prompt, and `extra_ids` sentinels follow the pieces, as in transformers' `T5Tokenizer`.
pub(crate) fn tokenizer_json(place: &str, file: &[u8], extra_ids: usize) -> Result<Vec<u8>, ModelError> {
    let fault = |message: &str| ModelError::new(place, message);
    let damaged = || fault("is not a SentencePiece model");
    let (mut pieces, mut added): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let (mut unknown, mut end, mut charsmap) = (None, None, None);
    for field in fields(file) {
        match field.ok_or_else(damaged)? {
            // pieces
            (1, Field::Bytes(piece)) => {
                let (mut text, mut score, mut kind) = ("", 0.0, 1);
                for field in fields(piece) {
                    match field.ok_or_else(damaged)? {
                        (1, Field::Bytes(bytes)) => text = std::str::from_utf8(bytes).map_err(|_| damaged())?,
                        (2, Field::Fixed32(bits)) => score = f32::from_bits(bits),
                        (3, Field::Number(number)) => kind = number,
                        _ => {}
                    }
                }
                let id = pieces.len();
                if kind == UNKNOWN {
                    unknown = Some(id);
                }
                if text == "</s>" {
                    end = Some(id);
                }
                if matches!(kind, UNKNOWN | CONTROL) {
                    added.push(special(id, text));
                }
                pieces.push(json!([text, score]));
            }
            // trainer_spec.model_type; 1, the default, is the unigram model
            (2, Field::Bytes(spec)) => {
                for field in fields(spec) {
                    if let (3, Field::Number(kind @ 2..)) = field.ok_or_else(damaged)? {
                        return Err(fault(&format!(
                            "model_type = {kind} is not supported (only 1, the unigram model, is)"
                        )));
                    }
                }
            }
            // normalizer_spec.precompiled_charsmap
            (3, Field::Bytes(spec)) => {
                for field in fields(spec) {
                    if let (2, Field::Bytes(bytes)) = field.ok_or_else(damaged)? {
                        charsmap = (!bytes.is_empty()).then(|| base64(bytes));
                    }
                }
            }
            _ => {}
        }
    }
    let (Some(unknown), Some(end)) = (unknown, end) else {
        return Err(fault("has no unknown piece or no </s>"));
    };
    for i in (0..extra_ids).rev() {
        let sentinel = format!("<extra_id_{i}>");
        added.push(special(pieces.len(), &sentinel));
        pieces.push(json!([sentinel, 0.0]));
    }
    let description = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": charsmap.map(|map| json!({"type": "Precompiled", "precompiled_charsmap": map})),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [end], "tokens": ["</s>"]}},
        },
        "decoder": null,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": false},
    });
    Ok(description.to_string().into_bytes())
}

fn special(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "special": true, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false,
    })
}

/// A field's value, by its wire type.
enum Field<'a> {
    Number(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// Eight bytes. No field that is read here has this type.
    Other,
}

/// The fields of a message with their numbers; A damaged message yields one `None` and ends.
fn fields(mut message: &[u8]) -> impl Iterator<Item = Option<(u64, Field<'_>)>> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let field = next(&mut message);
        if field.is_none() {
            message = &[];
        }
        Some(field)
    })
}

fn next<'a>(message: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = varint(message)?;
    let field = match key & 7 {
        0 => Field::Number(varint(message)?),
        1 => take(message, 8).map(|_| Field::Other)?,
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            Field::Bytes(take(message, length)?)
        }
        5 => Field::Fixed32(u32::from_le_bytes(take(message, 4)?.try_into().ok()?)),
        _ => return None,
    };
    Some((key >> 3, field))
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Base64 (RFC 4648), in which `tokenizer.json` holds the map of characters.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn damage_is_said() {
        for file in [&b"\x0a\x05ab"[..], b"\xff", b"{}", b"", &[0x80; 20]] {
            let error = tokenizer_json("spiece.model", file, 1).expect_err("damaged").to_string();
            assert!(error.starts_with("spiece.model: "), "{error}");
        }
        let error = tokenizer_json("spiece.model", b"\x12\x02\x18\x02", 1).expect_err("BPE").to_string();
        assert!(error.contains("model_type = 2"), "{error}");
    }
}
