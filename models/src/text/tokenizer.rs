//! Prompts to token ids, as transformers' tokenizers do it.

use crate::checkpoint::ModelFiles;
use crate::config::parse;
use crate::contain::contain;
use crate::error::ModelError;
use crate::text::description::at_fault;
use crate::text::sentence_piece;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use tokenizers::AddedToken;

/// The most bytes of a tokenizer's file: published ones have a few MiB.
const LARGEST_FILE: usize = 64 << 20;

/// A text encoder's tokenizer with the settings that lie beside it.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    place: String,
    max_length: Option<usize>,
    pad: u32,
    /// Ids before and after the tokens of a prompt.
    marks: [Vec<u32>; 2],
    /// Words that were added: their ids, and the rows of the text encoder's embedding that each stands for.
    learned: BTreeMap<u32, Range<u32>>,
}

/// A prompt as a text encoder reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, padded to the length asked for.
    pub ids: Vec<u32>,
    /// 1 for each token, 0 for padding.
    pub attention_mask: Vec<u32>,
    /// Tokens of the prompt that did not fit.
    pub dropped: usize,
}

impl Encoding {
    /// The ids as a graph takes them.
    #[must_use]
    pub fn ids_f32(&self) -> Vec<f32> {
        // Vocabularies stay far below 2²⁴, up to which f32 holds whole numbers exactly; `Gather` refuses larger ones.
        self.ids.iter().map(|id| *id as f32).collect()
    }

    /// The mask as a graph takes it.
    #[must_use]
    pub fn mask_f32(&self) -> Vec<f32> {
        self.attention_mask.iter().map(|one| *one as f32).collect()
    }
}

impl Tokenizer {
    /// Reads the tokenizer in a folder of the model, such as `tokenizer`: `tokenizer.json`, or else CLIP's `vocab.json`
    /// with `merges.txt`, or T5's `spiece.model`.
    ///
    /// # Errors
    /// When neither is there or one of the files is not understood.
    pub fn open(files: &ModelFiles, folder: &str) -> Result<Self, ModelError> {
        let path = |name: &str| format!("{folder}/{name}");
        let settings = Settings::read(files, folder)?;
        let whole = path("tokenizer.json");
        let (from, text) = if files.exists(&whole) {
            let text = files.read(&whole)?.into_owned();
            (whole, text)
        } else if files.exists(&path("vocab.json")) && files.exists(&path("merges.txt")) {
            (path("merges.txt"), clip_tokenizer_json(files, folder, &settings)?)
        } else if files.exists(&path("spiece.model")) {
            let place = files.describe(&path("spiece.model"));
            let text = sentence_piece::tokenizer_json(&place, &files.read(&path("spiece.model"))?, settings.extra_ids)?;
            (path("spiece.model"), text)
        } else {
            let message = "has neither tokenizer.json nor vocab.json with merges.txt nor spiece.model";
            return Err(ModelError::new(files.describe(folder), message));
        };
        let fault = |message: String| ModelError::new(files.describe(&from), message);
        if text.len() > LARGEST_FILE {
            return Err(fault(format!("is larger than {} MiB, which no tokenizer is", LARGEST_FILE >> 20)));
        }
        let read = contain(|| {
            let mut inner = tokenizers::Tokenizer::from_bytes(&text)?;
            // Each call says its own length. Padding and truncation in a file may be left over from training.
            inner.with_padding(None).with_truncation(None)?;
            let probe = inner.encode_fast("a", true)?;
            Ok::<_, tokenizers::Error>((inner, probe))
        });
        // What is no JSON is told with its place. The library behind says of anything else only that it is none of many things, or panics.
        let explained = || match parse(&files.describe(&from), &text) {
            Ok(description) => fault(format!("is not understood: {}", at_fault(&description))),
            Err(error) => error,
        };
        let (inner, probe) = read.and_then(Result::ok).ok_or_else(explained)?;
        let marks = &settings.pad_token;
        let pad = marks.as_deref().and_then(|token| inner.token_to_id(token));
        let Some(pad) = pad else {
            let token = marks.as_deref().unwrap_or("(none)");
            return Err(fault(format!("the vocabulary has no padding token {token}")));
        };
        let marked = || probe.get_ids().iter().zip(probe.get_special_tokens_mask()).map(|(id, mark)| (*id, *mark == 1));
        let leading: Vec<u32> = marked().take_while(|(_, mark)| *mark).map(|(id, _)| id).collect();
        let trailing: Vec<u32> = marked().skip(leading.len()).filter(|(_, mark)| *mark).map(|(id, _)| id).collect();
        Ok(Self {
            inner,
            place: files.describe(folder),
            max_length: settings.max_length,
            pad,
            marks: [leading, trailing],
            learned: BTreeMap::new(),
        })
    }

    /// The longest sequence the text encoder was made for, marks included; `None` where the files do not say.
    #[must_use]
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The largest id of the vocabulary, which the text encoder's embedding must cover.
    #[must_use]
    pub fn largest_id(&self) -> u32 {
        self.inner.get_vocab(true).into_values().max().unwrap_or(0)
    }

    /// The id of a token of the vocabulary.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// How many marks go before and after a prompt.
    #[must_use]
    pub fn marks(&self) -> [usize; 2] {
        [self.marks[0].len(), self.marks[1].len()]
    }

    /// The mark that ends a prompt.
    #[must_use]
    pub fn end_mark(&self) -> Option<u32> {
        self.marks[1].last().copied()
    }

    /// Adds a word that stands for these rows of the text encoder's embedding. As in diffusers, `word_1`, `word_2` and
    /// so on each stand for one of the rows after the first. The word is also found inside other words, and whatever
    /// its case if the vocabulary ignores case.
    ///
    /// # Errors
    /// When the vocabulary has one of these words already, or cannot tell it from another.
    pub fn add(&mut self, word: &str, rows: Range<u32>) -> Result<(), ModelError> {
        let fault = |message: String| ModelError::new(&*self.place, message);
        let numbered = (1..rows.len()).map(|i| format!("{word}_{i}"));
        let words: Vec<String> = std::iter::once(word.to_owned()).chain(numbered).collect();
        if let Some(known) = words.iter().find(|word| self.inner.token_to_id(word).is_some()) {
            return Err(fault(format!("the vocabulary has the token {known} already: give the word another name")));
        }
        let tokens = words.iter().map(|word| AddedToken::from(&**word, false));
        let added = self.inner.add_tokens(tokens);
        added.map_err(|_| fault(format!("cannot add the token {word}: the vocabulary takes no further ones")))?;
        for (i, word) in words.iter().enumerate() {
            let start = rows.start + i as u32;
            let end = if i == 0 { rows.end } else { start + 1 };
            self.inner.token_to_id(word).map(|id| self.learned.insert(id, start..end));
        }
        // Where two words read the same, only one of them is found, so the new word is refused.
        for (id, rows) in &self.learned {
            let known = self.inner.id_to_token(*id).unwrap_or_default();
            if self.tokens(&known)? != rows.clone().collect::<Vec<u32>>() {
                let message = format!("the token {word} cannot be told from another: give the word another name");
                return Err(ModelError::new(&*self.place, message));
            }
        }
        Ok(())
    }

    /// The tokens of a text without marks.
    ///
    /// # Errors
    /// When the text cannot be tokenized.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        Ok(self.words(text)?.concat())
    }

    /// The tokens of a text, with all rows of an added word in one list.
    ///
    /// # Errors
    /// When the text cannot be tokenized.
    pub fn words(&self, text: &str) -> Result<Vec<Vec<u32>>, ModelError> {
        let fault = |why: &str| ModelError::new(&*self.place, format!("cannot tokenize: {why}"));
        let encoding =
            contain(|| self.inner.encode_fast(text, false)).ok_or_else(|| fault("the tokenizer is damaged"))?;
        let encoding = encoding.map_err(|_| {
            fault("the vocabulary has no token for a part of the text, and none for what it does not know")
        })?;
        let rows = |id: &u32| self.learned.get(id).map_or_else(|| vec![*id], |rows| rows.clone().collect());
        Ok(encoding.get_ids().iter().map(rows).collect())
    }

    /// Tokens with begin and end marks around them, cut and padded to exactly `length`.
    ///
    /// # Errors
    /// When `length` leaves no room for the marks.
    pub fn framed(&self, tokens: &[u32], length: usize) -> Result<Encoding, ModelError> {
        let [leading, trailing] = &self.marks;
        let marks = leading.len() + trailing.len();
        let Some(room) = length.checked_sub(marks) else {
            let message = format!("a length of {length} has no room for the {marks} marks");
            return Err(ModelError::new(&*self.place, message));
        };
        let kept = &tokens[..tokens.len().min(room)];
        let mut ids = [leading, kept, trailing].concat();
        let tokens_kept = ids.len();
        ids.resize(length, self.pad);
        let attention_mask = (0..length).map(|i| u32::from(i < tokens_kept)).collect();
        Ok(Encoding { ids, attention_mask, dropped: tokens.len() - kept.len() })
    }

    /// A prompt with its begin and end marks, cut and padded to exactly `length` tokens. A prompt that is cut keeps its
    /// end mark, as in transformers.
    ///
    /// # Errors
    /// When `length` leaves no room for the marks, or the prompt cannot be tokenized.
    pub fn encode(&self, prompt: &str, length: usize) -> Result<Encoding, ModelError> {
        self.framed(&self.tokens(prompt)?, length)
    }
}

/// What `tokenizer_config.json` and `special_tokens_map.json` say.
struct Settings {
    max_length: Option<usize>,
    pad_token: Option<String>,
    /// Tokens that are found in a prompt before it is split, in the form of `tokenizer.json` but without ids.
    added: Vec<Map<String, Value>>,
    class: Option<String>,
    unknown: String,
    begin: String,
    end: String,
    /// Number of sentinels at the end of T5's vocabulary, which its file does not list.
    extra_ids: usize,
}

impl Settings {
    fn read(files: &ModelFiles, folder: &str) -> Result<Self, ModelError> {
        let object = |name: &str| -> Result<Map<String, Value>, ModelError> {
            let path = format!("{folder}/{name}");
            if files.exists(&path) { parse(&files.describe(&path), &files.read(&path)?) } else { Ok(Map::new()) }
        };
        let (config, map) = (object("tokenizer_config.json")?, object("special_tokens_map.json")?);
        if let Some(side) = config.get("padding_side").filter(|side| *side != "right") {
            let path = files.describe(&format!("{folder}/tokenizer_config.json"));
            return Err(ModelError::new(path, format!("padding_side = {side} is not supported (only \"right\" is)")));
        }
        // As transformers reads them: where the configuration lists its added tokens, it says everything. Older folders do not, and there
        // special_tokens_map.json overrides the configuration, and added_tokens.json adds tokens with their ids.
        let old = !config.contains_key("added_tokens_decoder");
        let named = |name: &str| {
            let mapped = map.get(name).filter(|_| old);
            mapped.or_else(|| config.get(name)).filter(|token| !token.is_null())
        };
        let content = |token: &Value| token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned);
        let mark = |name: &str, default: &str| named(name).and_then(content).unwrap_or_else(|| default.to_owned());
        let (begin, end) = (mark("bos_token", "<|startoftext|>"), mark("eos_token", "<|endoftext|>"));
        let unknown = mark("unk_token", "<|endoftext|>");

        let (mut added, mut seen): (Vec<Map<String, Value>>, HashSet<Option<String>>) = Default::default();
        let mut add = |token: &Value| {
            let fields = match token {
                Value::Object(fields) => fields.clone(),
                Value::String(content) => Map::from_iter([("content".to_owned(), Value::String(content.clone()))]),
                _ => return,
            };
            if seen.insert(fields.get("content").map(Value::to_string)) {
                added.push(fields);
            }
        };
        let listed = if old { object("added_tokens.json")? } else { Map::new() };
        for (content, id) in listed {
            add(&json!({ "content": content, "id": id, "special": false }));
        }
        let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in decoder.into_iter().flatten() {
            let mut token = token.clone();
            if let (Some(fields), Ok(id)) = (token.as_object_mut(), id.parse::<u32>()) {
                fields.insert("id".into(), id.into());
            }
            add(&token);
        }
        ["bos_token", "eos_token", "unk_token", "pad_token"].into_iter().filter_map(named).for_each(&mut add);
        [&begin, &end, &unknown].into_iter().for_each(|token| add(&Value::String(token.clone())));

        Ok(Self {
            // transformers writes 10³⁰ where there is no limit.
            max_length: config.get("model_max_length").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()),
            pad_token: named("pad_token").and_then(content).or_else(|| {
                let t5 = files.exists(&format!("{folder}/spiece.model"));
                Some(if t5 { "<pad>".to_owned() } else { end.clone() })
            }),
            extra_ids: config.get("extra_ids").and_then(Value::as_u64).map_or(100, |n| n.min(1 << 16) as usize),
            class: config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned),
            added,
            unknown,
            begin,
            end,
        })
    }
}

/// CLIP's tokenizer in the form of a `tokenizer.json`: byte-level BPE in lower case, words ended by `</w>`.
fn clip_tokenizer_json(files: &ModelFiles, folder: &str, settings: &Settings) -> Result<Vec<u8>, ModelError> {
    let path = |name: &str| format!("{folder}/{name}");
    let supported = ["CLIPTokenizer", "CLIPTokenizerFast"];
    if let Some(class) = settings.class.as_deref().filter(|class| !supported.contains(class)) {
        let message = format!("a {class} is not supported without its tokenizer.json");
        return Err(ModelError::new(files.describe(&path("tokenizer_config.json")), message));
    }
    let vocab: Map<String, Value> = parse(&files.describe(&path("vocab.json")), &files.read(&path("vocab.json"))?)?;
    let place = files.describe(&path("merges.txt"));
    let merges = files.read(&path("merges.txt"))?;
    let merges = std::str::from_utf8(&merges).map_err(|_| ModelError::new(&*place, "is not UTF-8 text"))?;
    let merges: Vec<&str> = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();

    let id = |token: &str| vocab.get(token).cloned().unwrap_or(Value::Null);
    for token in [&settings.begin, &settings.end, &settings.unknown] {
        if id(token).is_null() {
            let message = format!("lacks the token {token}");
            return Err(ModelError::new(files.describe(&path("vocab.json")), message));
        }
    }
    let added = settings.added.iter().filter_map(|fields| {
        let content = fields.get("content")?.as_str()?;
        let flag = |name: &str, default: bool| fields.get(name).and_then(Value::as_bool).unwrap_or(default);
        let special = flag("special", true);
        // A token that textual inversion added is not in vocab.json and brings its own id.
        vocab.get(content).or_else(|| fields.get("id")).map(|id| {
            json!({
                "id": id, "content": content, "special": special, "normalized": flag("normalized", !special),
                "single_word": flag("single_word", false), "lstrip": flag("lstrip", false), "rstrip": flag("rstrip", false),
            })
        })
    });
    // Letters by words, digits one by one, everything else in runs; spaces separate and are dropped.
    let words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let description = json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "trim_offsets": false, "add_prefix_space": false,
            "sep": [&settings.end, id(&settings.end)], "cls": [&settings.begin, id(&settings.begin)],
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "unk_token": &settings.unknown, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "merges": merges, "vocab": vocab,
        },
    });
    Ok(description.to_string().into_bytes())
}
