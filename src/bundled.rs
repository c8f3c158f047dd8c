//! The models inside this program.

use models::ModelFiles;

/// A model whose files are part of the program.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// What `--model` takes.
    pub name: &'static str,
    /// One line for a list.
    pub summary: &'static str,
    files: &'static [File],
}

/// Every bundled model has the same parts. Those behind the semicolon are the same files as of the model that they are named after, and lie in the
/// program once: a consistency model reads text as the model that it was distilled from.
#[cfg(feature = "bundled")]
macro_rules! embed {
    ($folder:literal, text of $text:ident) => {
        embed!($folder:
            "model_index.json",
            "scheduler/scheduler_config.json",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vocabulary.json",
            "README.md",
            "NOTICE.md";
            $text[0], $text[1], $text[2], $text[3], $text[4], $text[5],
        )
    };
    ($folder:literal: $($file:literal),+; $($shared:expr),+ $(,)?) => {
        &[$(embed!(file $folder, $file)),+, $($shared),+]
    };
    (file $folder:literal, $file:literal) => {
        ($file, include_bytes!(concat!("../assets/models/", $folder, "/", $file)))
    };
}

/// A file's path in its model's folder, and what it holds.
type File = (&'static str, &'static [u8]);

/// The text encoder and the tokenizer of both models.
#[cfg(feature = "bundled")]
static TEXT: [File; 6] = [
    embed!(file "icons-64", "text_encoder/config.json"),
    embed!(file "icons-64", "text_encoder/model.safetensors"),
    embed!(file "icons-64", "tokenizer/merges.txt"),
    embed!(file "icons-64", "tokenizer/special_tokens_map.json"),
    embed!(file "icons-64", "tokenizer/tokenizer_config.json"),
    embed!(file "icons-64", "tokenizer/vocab.json"),
];

/// The model that pictures are made with when none is named: one step is enough.
pub const DEFAULT: &str = "icons-64-consistency";

/// The same for what needs a schedule to start in the middle of, or guided steps to time.
pub const DIFFUSION: &str = "icons-64";

/// All of them; none where the feature `bundled` is off.
#[cfg(not(feature = "bundled"))]
pub static BUNDLED: &[Bundled] = &[];

/// All of them; none where the feature `bundled` is off. A static, as every crate that names a constant gets its own copy of all files.
#[cfg(feature = "bundled")]
pub static BUNDLED: &[Bundled] = &[
    Bundled {
        name: DEFAULT,
        summary: "64x64 icons and emoji from text in one to four steps; a consistency model distilled from icons-64",
        files: embed!("icons-64-consistency", text of TEXT),
    },
    Bundled {
        name: DIFFUSION,
        summary: "the same in twenty steps, by any sampler; a pixel-space diffusion transformer",
        files: embed!("icons-64", text of TEXT),
    },
];

/// The bundled model of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Bundled> {
    BUNDLED.iter().find(|model| model.name == name)
}

impl Bundled {
    /// Its files, as if they lay in a folder.
    #[must_use]
    pub fn files(&self) -> ModelFiles {
        ModelFiles::embedded(self.name, self.files)
    }

    /// Their paths, relative to its folder.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.files.iter().map(|(path, _)| *path)
    }

    /// Total size of its files.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}
