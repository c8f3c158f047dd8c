//! Token ids against transformers (`tests/goldens/make_tokenizers.py`).

use models::{ModelFiles, Tokenizer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

fn goldens() -> ModelFiles {
    ModelFiles::folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/tokenizers"))
        .expect("the goldens exist")
}

#[test]
fn ids_are_those_of_transformers() {
    let files = goldens();
    let read =
        |file: &str| serde_json::from_slice::<Vec<Value>>(&files.read(file).expect("a file")).expect("a list of cases");
    // T5's are made by `make_pixart.py`.
    let cases = [read("cases.json"), read("t5.json")].concat();
    let mut tokenizers: BTreeMap<String, Tokenizer> = BTreeMap::new();
    for case in &cases {
        let folder = case["folder"].as_str().expect("a folder");
        let tokenizer = tokenizers
            .entry(folder.to_owned())
            .or_insert_with(|| Tokenizer::open(&files, folder).unwrap_or_else(|error| panic!("{error}")));
        let number = |field: &str| case[field].as_u64().expect("a number") as usize;
        let prompt = case["prompt"].as_str().expect("a prompt");
        let ours = tokenizer.encode(prompt, number("length")).expect("a prompt");
        let wanted: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
        assert_eq!(ours.ids, wanted, "{folder}: {prompt:?} at {}", number("length"));
        assert_eq!(ours.attention_mask.iter().sum::<u32>() as usize, number("tokens"), "{folder}: {prompt:?}");
        assert!(ours.attention_mask.is_sorted_by(|a, b| a >= b), "{folder}: padding comes after {prompt:?}");
        assert_eq!(ours.dropped, number("dropped"), "{folder}: {prompt:?}");
    }
    assert_eq!(tokenizers["files"].max_length(), Some(20));
    assert_eq!(tokenizers["flags"].max_length(), Some(77));
    assert_eq!(tokenizers["json"].largest_id(), 639);
    assert_eq!((tokenizers["t5"].largest_id(), tokenizers["t5_spiece"].largest_id()), (77, 77));
}

#[test]
fn a_prompt_of_ten_thousand_words_is_cut_at_once() {
    let tokenizer = Tokenizer::open(&goldens(), "files").expect("a tokenizer");
    let words = "red circle ".repeat(5_000);
    let one_word = "incomprehensibility".repeat(5_000);
    for prompt in [words, one_word] {
        let start = Instant::now();
        let encoding = tokenizer.encode(&prompt, 20).expect("a prompt");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?} for {} bytes", start.elapsed(), prompt.len());
        assert_eq!((encoding.ids.len(), encoding.attention_mask.iter().sum::<u32>()), (20, 20));
        assert_eq!(encoding.ids[19], 639, "a prompt that is cut keeps its end mark");
        assert!(encoding.dropped >= 9_000, "{} tokens dropped", encoding.dropped);
    }
}

type Files = &'static [(&'static str, &'static [u8])];

const VOCAB: (&str, &[u8]) = ("tokenizer/vocab.json", br#"{"a":0,"<|startoftext|>":1,"<|endoftext|>":2}"#);
const MERGES: (&str, &[u8]) = ("tokenizer/merges.txt", b"#version: 0.2\na b\n");

#[test]
fn what_is_wrong_is_said() {
    let cases: [(Files, &str); 6] = [
        (&[], "model/tokenizer: has neither tokenizer.json nor vocab.json with merges.txt nor spiece.model"),
        (&[("tokenizer/tokenizer.json", b"{")], "model/tokenizer/tokenizer.json: is not understood: "),
        (
            &[("tokenizer/vocab.json", br#"{"a":0}"#), MERGES],
            "model/tokenizer/vocab.json: lacks the token <|startoftext|>",
        ),
        (&[VOCAB, MERGES], "model/tokenizer/merges.txt: is not understood: "),
        (
            &[VOCAB, MERGES, ("tokenizer/tokenizer_config.json", br#"{"tokenizer_class":"T5Tokenizer"}"#)],
            "model/tokenizer/tokenizer_config.json: a T5Tokenizer is not supported without its tokenizer.json",
        ),
        (
            &[VOCAB, MERGES, ("tokenizer/tokenizer_config.json", br#"{"padding_side":"left"}"#)],
            "model/tokenizer/tokenizer_config.json: padding_side = \"left\" is not supported (only \"right\" is)",
        ),
    ];
    for (files, message) in cases {
        let error = Tokenizer::open(&ModelFiles::embedded("model", files), "tokenizer").map(|_| ()).expect_err(message);
        assert!(error.to_string().starts_with(message), "{error}");
    }

    let tokenizer = Tokenizer::open(&goldens(), "files").expect("a tokenizer");
    let text = tokenizer.encode("red", 1).expect_err("no room").to_string();
    assert!(text.ends_with("a length of 1 has no room for the 2 marks"), "{text}");
}
