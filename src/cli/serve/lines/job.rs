//! Lines of input: read within bounds, and turned into what a request of the server asks.

use super::super::fields::{IMAGE, MASK};
use super::super::order::Asked;
use super::id::Id;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufRead, Read as _};
use std::path::Path;

/// Bytes of a line, with two large pictures in base64; and of a picture's file.
const MOST_BYTES: u64 = 64 << 20;

/// A line, counted from 1; none where it is longer than lines may be.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) text: Option<Vec<u8>>,
}

/// Hands on every line that is not empty, until nobody takes them. An error is of reading.
pub(super) fn read(mut input: impl BufRead, mut take: impl FnMut(Line) -> bool) -> std::io::Result<()> {
    for number in 1.. {
        let mut text = Vec::new();
        if input.by_ref().take(MOST_BYTES + 1).read_until(b'\n', &mut text)? == 0 {
            return Ok(());
        }
        let is_whole = text.last() == Some(&b'\n') || text.len() as u64 <= MOST_BYTES;
        if !is_whole {
            input.skip_until(b'\n')?;
        }
        // An error of the line tells where in it.
        text.truncate(text.trim_ascii_end().len());
        // What some editors put before the first line.
        if number == 1 && text.starts_with(b"\xef\xbb\xbf") {
            text.drain(..3);
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if !take(Line { number, text: is_whole.then_some(text) }) {
            return Ok(());
        }
    }
    Ok(())
}

impl Line {
    /// The job's id and its fields, or why it is none.
    pub(super) fn parse(&self) -> Result<(Id, Map<String, Value>), String> {
        let text = self.text.as_deref().ok_or_else(|| format!("it has more than {} MiB", MOST_BYTES >> 20))?;
        let value = serde_json::from_slice(text).map_err(|error| format!("it is no valid JSON: {error}"))?;
        let Value::Object(mut fields) = value else { return Err("it is no JSON object".into()) };
        let id = match fields.shift_remove("id") {
            Some(Value::String(text)) => Id::new(&text)?,
            Some(Value::Number(number)) if !number.is_f64() => Id::new(&number.to_string())?,
            Some(_) => return Err("its id must be a text or a whole number".into()),
            None => return Err("it has no id".into()),
        };
        Ok((id, fields))
    }
}

/// What the fields ask for: those of the server's own API, with `image_file` and `mask_file` for files here.
pub(super) fn asked(id: &Id, mut fields: Map<String, Value>, most_pixels: usize) -> Result<Asked, String> {
    let is_drawn = match fields.get("seed") {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(-1),
        Some(Value::String(text)) => text == "random" || text == "-1",
        Some(_) => false,
    };
    if is_drawn {
        fields.insert("seed".into(), json!(id.seed()));
    }
    // About whoever watches: nobody does.
    for told in ["previews", "reference", "detached"] {
        fields.shift_remove(told);
    }
    let files: Vec<_> = [("image_file", IMAGE), ("mask_file", MASK)]
        .into_iter()
        .filter_map(|(field, name)| Some((field, name, fields.shift_remove(field)?)))
        .filter(|(.., value)| !value.is_null())
        .collect();
    let mut asked = Asked::from_json(fields, most_pixels).map_err(|error| error.message)?;
    for (field, name, value) in files {
        let path = value.as_str().ok_or_else(|| format!("{field} must be a text"))?;
        if asked.sent.has(name) || (name == MASK && asked.mask.is_some()) {
            return Err(format!("{field} is given, and {name}, too: give one of them"));
        }
        asked.sent.put(name, contents(Path::new(path)).map_err(|why| format!("{field} {path}: {why}"))?);
    }
    Ok(asked)
}

/// A file's bytes. Pipes and devices may have no end, and are refused.
fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let about = path.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("is no file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("has more than {} MiB", MOST_BYTES >> 20));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_empty_ones_left_out() {
        let input = "\u{feff}{\"id\":1}\r\n\n  \n{\"id\":\"b\"}";
        let mut found = Vec::new();
        read(input.as_bytes(), |line| {
            found.push((line.number, line.parse().map(|(id, _)| id.text().to_owned())));
            true
        })
        .expect("reads");
        assert_eq!(found, [(1, Ok("1".into())), (4, Ok("b".into()))]);
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x').take(MOST_BYTES + 9));
        let after = b"\n{\"id\":2}\n".as_slice();
        let mut found = Vec::new();
        read(endless.chain(after), |line| {
            found.push((line.number, line.parse().is_ok()));
            true
        })
        .expect("reads");
        assert_eq!(found, [(1, false), (2, true)]);
    }

    #[test]
    fn a_job_without_a_seed_has_its_ids() {
        let id = Id::new("a").expect("an id");
        for (seed, want) in [
            (json!(null), json!(3_398_926_610_u64)),
            (json!(-1), json!(3_398_926_610_u64)),
            (json!("random"), json!(3_398_926_610_u64)),
            (json!(7), json!(7)),
            (json!("7"), json!("7")),
        ] {
            let fields = json!({ "prompt": "x", "seed": seed }).as_object().expect("an object").clone();
            assert_eq!(asked(&id, fields, 1).expect("a job").fields["seed"], want);
        }
    }
}
