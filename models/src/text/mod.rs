//! Prompts to token ids.

mod sentence_piece;
mod tokenizer;

pub use tokenizer::{Encoding, Tokenizer};
