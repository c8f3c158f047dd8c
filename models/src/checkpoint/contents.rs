//! What a file is, told from its first bytes and from the names of its tensors, before anything is said about what is
//! wrong with it.

use crate::checkpoint::lora;
use crate::checkpoint::mapped::Bytes;
use crate::checkpoint::tensor_names::has_sign;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::path::Path;

/// Why pickles are refused, for every message that refuses one.
pub(crate) const PICKLE: &str =
    "loading a pickle runs whatever program is inside, so it is refused; save the model with safe_serialization=True";

/// First bytes of files that people take for weights, and what each is.
const MAGICS: &[(usize, &[u8], &str)] = &[
    (0, b"GGUF", "is a GGUF file, a format that is not read: give the same model as safetensors"),
    (0, b"\x89PNG\r\n\x1a\n", PICTURE),
    (0, b"\xff\xd8\xff", PICTURE),
    (0, b"GIF8", PICTURE),
    (8, b"WEBP", PICTURE),
    (0, b"II*\0", PICTURE),
    (0, b"MM\0*", PICTURE),
    (4, b"ftypavif", PICTURE),
    (4, b"ftyphei", PICTURE),
    (0, b"%PDF", "is a PDF document, not a model: give the safetensors file"),
    (0, b"\x89HDF", "is an HDF5 file, a format that is not read: give the same model as safetensors"),
    (0, b"\x1f\x8b", ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", ARCHIVE),
    (0, b"Rar!", ARCHIVE),
    (0, b"\xfd7zXZ\0", ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", ARCHIVE),
    (257, b"ustar", ARCHIVE),
];

const PICTURE: &str = "is a picture, not a model: give the safetensors file";
const ARCHIVE: &str = "is a packed archive, not safetensors: unpack it and give the safetensors file that is inside";

/// Opens a regular file. Pipes and devices are refused before anything waits for them.
pub(crate) fn open(path: &Path) -> Result<Bytes, String> {
    regular(path)?;
    Bytes::map(path).map_err(|error| format!("cannot be read ({})", plain(&error)))
}

/// Whether there is a regular file at a path; the error says what there is instead.
pub(crate) fn regular(path: &Path) -> Result<Metadata, String> {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(metadata),
        Ok(metadata) if metadata.is_dir() => Err(folder(path)),
        Ok(_) => Err("is a pipe or a device, and no file: save its contents to a file first".into()),
        Err(error) => Err(format!("cannot be read ({})", plain(&error))),
    }
}

/// What to do with a folder in a file's place.
fn folder(path: &Path) -> String {
    match only_weights(path) {
        Some(file) => format!("is a folder, and a file is wanted: give {file}"),
        None => "is a folder, and a file is wanted: give one safetensors file".into(),
    }
}

/// The safetensors file directly inside a folder, if there is exactly one.
pub(crate) fn only_weights(folder: &Path) -> Option<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files = files.filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
    let only = files.next()?;
    files.next().is_none().then(|| only.display().to_string())
}

/// The system's message without Rust's "(os error 2)".
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}

/// What a file is that cannot be safetensors, as the rest of a sentence; `None` for what may be.
pub(crate) fn foreign(bytes: &[u8]) -> Option<String> {
    // A header's length in eight bytes, and its first brace. No header has as many bytes as text in this place means.
    if matches!(bytes, [_, _, _, _, _, 0, 0, 0, b'{', ..]) {
        return None;
    }
    if bytes.is_empty() {
        return Some("is empty, and is not a safetensors file: it has only 0 bytes; download it again".into());
    }
    if let Some(what) = text(bytes) {
        return Some(what);
    }
    if let Some(kind) = pickle(bytes) {
        return Some(format!("is {kind}, not safetensors: {PICKLE}"));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(ARCHIVE.into());
    }
    let picture = bytes.len() > 14 && bytes.starts_with(b"BM") && bytes[6..10] == [0; 4];
    let found = MAGICS.iter().find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    found.map(|(.., what)| *what).or(picture.then_some(PICTURE)).map(str::to_owned)
}

/// What a text is that stands in a file's place: not the file, but a note about it.
pub(crate) fn in_place_of_text(bytes: &[u8]) -> Option<String> {
    let start = text_start(bytes);
    if ["version https://git-lfs", "version https://hawser", "version http://git-media"]
        .iter()
        .any(|sign| start.starts_with(sign.as_bytes()))
    {
        let what = "is a Git LFS pointer, not the file that it stands for";
        return Some(format!("{what}: fetch the file with `git lfs pull`, or download it again"));
    }
    let lower = start[..start.len().min(64)].to_ascii_lowercase();
    let page = ["<!doctype", "<html", "<head", "<?xml", "<script", "<!--"];
    let what = "is a web page, not a file of a model: a page was saved in its place (a login or an error), so download it again";
    page.iter().any(|sign| lower.starts_with(sign.as_bytes())).then(|| what.to_owned())
}

fn text_start(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start()
}

fn text(bytes: &[u8]) -> Option<String> {
    if let Some(what) = in_place_of_text(bytes) {
        return Some(what);
    }
    let start = text_start(bytes);
    // Large files are no messages, and are not searched to their end.
    let json = (start.len() < 1 << 20).then(|| serde_json::from_slice::<serde_json::Value>(start).ok()).flatten();
    match json {
        Some(serde_json::Value::Object(fields)) => {
            let error =
                ["error", "errors", "message", "detail", "code"].iter().any(|field| fields.contains_key(*field));
            Some(if error {
                "is a server's message in JSON, not a model: it was saved in the file's place, so download it again"
                    .into()
            } else if fields.contains_key("weight_map") {
                "is the index of a model's shards, not its weights: give the folder that it lies in".into()
            } else {
                "is JSON, not safetensors: give the file of the weights, or the folder of the model".into()
            })
        }
        Some(serde_json::Value::Array(_)) => Some("is JSON, not safetensors: give the file of the weights".into()),
        _ => None,
    }
}

/// What kind of pickle a file is, if it is one.
fn pickle(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'P', b'K', 3, 4, ..] if !is_other_zip(bytes) => Some("a zip archive, as torch.save writes"),
        // Protocol 2 to 5 begins with the opcode PROTO. As a header's length it would be 640 bytes or more with the
        // following bytes zero; a pickle continues with an opcode instead.
        [0x80, 2..=5, third, ..] if *third != 0 => Some("a pickle"),
        // Protocols 0 and 1 have no mark: they begin with a mark and an empty dictionary or list, or with a class.
        [b'(', b'd' | b'l', b'p', ..] | [b'}' | b']', b'q', ..] => Some("a pickle"),
        _ if bytes.starts_with(b"ccollections\n") => Some("a pickle"),
        _ => None,
    }
}

/// Whether a zip archive is certainly none of PyTorch's, which hold a `data.pkl` and keep the list of their entries at
/// their end.
fn is_other_zip(bytes: &[u8]) -> bool {
    const LIST: usize = 1 << 16;
    let end = &bytes[bytes.len().saturating_sub(LIST)..];
    let has = |place: &[u8], text: &[u8]| place.windows(text.len()).any(|window| window == text);
    has(end, b"PK\x05\x06") && !has(end, b"data.pkl") && !has(&bytes[..bytes.len().min(LIST)], b"data.pkl")
}

/// What the tensors of a file are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    Adapter,
    Whole,
    Unet,
    Transformer,
    Autoencoder,
    TextEncoder,
    ControlNet,
    TextualInversion,
}

impl Contents {
    pub(crate) fn is_adapter(self) -> bool {
        self == Self::Adapter
    }

    /// What to do with it, where something else was wanted.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Adapter => "give the model that it was made for, and this file as an adapter",
            Self::Whole => "give it as the model",
            Self::Unet | Self::Transformer => {
                "give a complete checkpoint or a folder in diffusers' layout as the model"
            }
            Self::Autoencoder => "give it as a model's autoencoder",
            Self::TextEncoder => "give the folder in diffusers' layout that it is a part of",
            Self::ControlNet => "ControlNets are not supported",
            Self::TextualInversion => "give it as an embedding",
        }
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adapter => "a LoRA, which is added to a model",
            Self::Whole => "a whole checkpoint, a model of its own",
            Self::Unet => "a UNet alone, the network of a model",
            Self::Transformer => "a transformer alone, the network of a model",
            Self::Autoencoder => "an autoencoder (VAE), one part of a model",
            Self::TextEncoder => "a text encoder, one part of a model",
            Self::ControlNet => "a ControlNet",
            Self::TextualInversion => "a textual inversion, a word for text encoders",
        })
    }
}

/// Tensors' names, or beginnings of them that end with a dot, of which a file of the kind has all. The first kind that fits is the file's.
const SIGNS: &[(&[&str], Contents)] = &[
    (&["control_model."], Contents::ControlNet),
    (&["controlnet_cond_embedding."], Contents::ControlNet),
    (&["model.diffusion_model.", "cond_stage_model."], Contents::Whole),
    (&["model.diffusion_model.", "conditioner."], Contents::Whole),
    (&["model.diffusion_model.", "text_encoders."], Contents::Whole),
    (&["model.diffusion_model.", "first_stage_model."], Contents::Whole),
    (&["model.diffusion_model."], Contents::Unet),
    (&["input_blocks.", "middle_block.", "output_blocks."], Contents::Unet),
    (&["diffusion_model.input_blocks."], Contents::Unet),
    (&["conv_in.", "down_blocks.", "up_blocks."], Contents::Unet),
    (&["pos_embed.", "transformer_blocks."], Contents::Transformer),
    (&["proj_out.", "transformer_blocks."], Contents::Transformer),
    (&["double_blocks."], Contents::Transformer),
    (&["joint_blocks."], Contents::Transformer),
    (&["first_stage_model."], Contents::Autoencoder),
    (&["decoder.conv_in.", "decoder.conv_out."], Contents::Autoencoder),
    (&["encoder.conv_in.", "encoder.conv_out."], Contents::Autoencoder),
    (&["decoder.layers.0.", "encoder.layers.0."], Contents::Autoencoder),
    (&["cond_stage_model."], Contents::TextEncoder),
    (&["text_model.embeddings."], Contents::TextEncoder),
    (&["embeddings.token_embedding."], Contents::TextEncoder),
    (&["shared.weight", "encoder.block."], Contents::TextEncoder),
    (&["encoder.embed_tokens.", "encoder.block."], Contents::TextEncoder),
    (&["transformer.resblocks.", "token_embedding."], Contents::TextEncoder),
];

/// Names of all tensors of textual inversions.
const INVERSIONS: &[&[&str]] = &[&["emb_params"], &["clip_g", "clip_l"]];

/// What the tensors of these names are together, if that can be told.
pub(crate) fn of_tensors<'a>(names: impl Iterator<Item = &'a str>) -> Option<Contents> {
    let names: BTreeSet<&str> = names.collect();
    let begins = |sign: &str| names.range(sign..).next().is_some_and(|name| has_sign(name, sign));
    let found = SIGNS.iter().find(|(signs, _)| signs.iter().all(|sign| begins(sign))).map(|(_, what)| *what);
    let is_of_adapter = |name: &&str| lora::is_of_adapter(name) || name.starts_with("bundle_emb.");
    match found {
        // An adapter's names may begin as those of any part, but never as a checkpoint's.
        Some(_) if begins("model.diffusion_model.") => found,
        _ if names.iter().any(is_of_adapter) => Some(Contents::Adapter),
        Some(_) => found,
        None => {
            let all: Vec<&str> = names.into_iter().collect();
            let word = matches!(&all[..], [name] if name.starts_with('<') && name.ends_with('>'));
            (word || INVERSIONS.contains(&&all[..])).then_some(Contents::TextualInversion)
        }
    }
}
