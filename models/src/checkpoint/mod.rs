//! Checkpoint files: finding them, reading them, changing them and writing them anew.
//!
//! From the bytes up: `mapped` brings a file into memory, `contents` tells what it is, `safetensors_file` checks its
//! header, `number_types` reads its numbers, `single_file` gives one large file the look of diffusers' folder. `files`
//! finds the files of a model in any layout, `index` and `weights` read them, and `modified`, `learned_weights` and
//! `convert` build on those.

mod contents;
mod convert;
mod files;
mod index;
mod learned_weights;
mod lora;
mod lora_targets;
mod mapped;
mod modified;
mod number_types;
mod path;
mod safetensors_file;
mod scaled;
mod single_file;
mod tensor_names;
mod textual_inversion;
pub mod weight_files;
mod weights;

pub use convert::{Conversion, ConvertError, SmallFile};
pub use files::ModelFiles;
pub use index::{Component, Defaults, ModelIndex};
pub use learned_weights::LearnedWeights;
pub use lora::Lora;
pub use mapped::{Bytes, Pieces};
pub use path::is_inside;
pub use textual_inversion::{Learned, TextualInversion};
pub use weights::{CheckReport, Checkpoint};
