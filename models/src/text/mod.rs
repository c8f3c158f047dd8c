//! Prompts to token ids, and what a model says it draws.

mod description;
mod sentence_piece;
mod tokenizer;
mod vocabulary;

pub use tokenizer::{Encoding, Tokenizer};
pub use vocabulary::Vocabulary;
