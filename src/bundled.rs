//! The models inside this program.

use models::ModelFiles;

/// A model whose files are part of the program.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// What `--model` takes.
    pub name: &'static str,
    /// One line for a list.
    pub summary: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

/// Every bundled model has the same parts.
#[cfg(feature = "bundled")]
macro_rules! embed {
    ($folder:literal) => {
        embed!($folder:
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vocabulary.json",
            "README.md",
            "NOTICE.md",
        )
    };
    ($folder:literal: $($file:literal),+ $(,)?) => {
        &[$(($file, include_bytes!(concat!("../assets/models/", $folder, "/", $file)))),+]
    };
}

/// The model that pictures are made with when none is named: one step is enough.
pub const DEFAULT: &str = "icons-64-consistency";

/// The same for what needs a schedule to start in the middle of, or guided steps to time.
pub const DIFFUSION: &str = "icons-64";

/// All of them; none where the feature `bundled` is off.
#[cfg(not(feature = "bundled"))]
pub const BUNDLED: &[Bundled] = &[];

/// All of them; none where the feature `bundled` is off.
#[cfg(feature = "bundled")]
pub const BUNDLED: &[Bundled] = &[
    Bundled {
        name: DEFAULT,
        summary: "64x64 icons and emoji from text in one to four steps; a consistency model distilled from icons-64",
        files: embed!("icons-64-consistency"),
    },
    Bundled {
        name: DIFFUSION,
        summary: "the same in twenty steps, by any sampler; a pixel-space diffusion transformer",
        files: embed!("icons-64"),
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
