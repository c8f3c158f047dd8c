//! Prompts to token ids.

mod description;
mod sentence_piece;
mod tokenizer;

pub use tokenizer::{Encoding, Tokenizer};
