//! CLIP's tokenizer. Single files do not contain it, so it is built into the program.

use serde_json::{Map, Value, json};

/// The ids of the two tokens of every merge; see `assets/tokenizers/clip/NOTICE.md`.
static MERGES: &[u8] = include_bytes!("../../../../assets/tokenizers/clip/merges.bin");

/// Every token in the order of ids, and `merges.txt` without its heading.
fn tokens() -> (Vec<String>, Vec<String>) {
    let printable = (b'!'..=b'~').chain(0xA1..=0xAC).chain(0xAE..=0xFF).map(char::from);
    // Bytes that are not printable are represented by characters from U+0100 on, as in GPT-2.
    let others = (0x100..).filter_map(char::from_u32);
    let letters: Vec<String> = printable.chain(others).take(256).map(String::from).collect();
    let mut tokens = letters.clone();
    tokens.extend(letters.iter().map(|letter| format!("{letter}</w>")));
    let mut merges = Vec::with_capacity(MERGES.len() / 4);
    for pair in MERGES.chunks_exact(4) {
        let [first, second] =
            [[pair[0], pair[1]], [pair[2], pair[3]]].map(|id| &tokens[usize::from(u16::from_le_bytes(id))]);
        merges.push(format!("{first} {second}"));
        let joined = format!("{first}{second}");
        tokens.push(joined);
    }
    tokens.extend(["<|startoftext|>".to_owned(), "<|endoftext|>".to_owned()]);
    (tokens, merges)
}

/// A file of the tokenizer's folder, with `pad` as the padding token. `None` if there is no file of this name.
pub(crate) fn file(name: &str, pad: &str) -> Option<Vec<u8>> {
    match name {
        "vocab.json" => {
            let ids = tokens().0.into_iter().enumerate().map(|(id, token)| (token, Value::from(id)));
            Some(Value::Object(ids.collect::<Map<_, _>>()).to_string().into_bytes())
        }
        "merges.txt" => Some(format!("#version: 0.2\n{}\n", tokens().1.join("\n")).into_bytes()),
        "tokenizer_config.json" => Some(
            json!({
                "bos_token": "<|startoftext|>", "do_lower_case": true, "eos_token": "<|endoftext|>",
                "model_max_length": 77, "pad_token": pad, "tokenizer_class": "CLIPTokenizer", "unk_token": "<|endoftext|>",
            })
            .to_string()
            .into_bytes(),
        ),
        _ => None,
    }
}

/// The files that [`file`] knows.
pub(crate) const FILES: &[&str] = &["merges.txt", "tokenizer_config.json", "vocab.json"];
