//! Prompts as AUTOMATIC1111's web UI reads them: weights, escapes, and chunks of what the text encoder reads at once.
//!
//! `(a)` is 1.1 times as strong, `[a]` 1.1 times as weak, `(a:1.3)` 1.3 times as strong; brackets nest, those that nobody closes reach
//! to the end, and `\(`, `\)`, `\[`, `\]` and `\\` are the characters themselves. Every piece of one weight is tokenized by itself, and
//! `BREAK` begins the next chunk. A prompt that has none of these is text as it stands, backslashes included.

use crate::error::PipelineError;
use std::fmt;
use std::str::FromStr;

/// How a prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptSyntax {
    /// As in AUTOMATIC1111's web UI: weights in brackets, and as many chunks as a long prompt needs.
    A1111,
    /// As in diffusers: text as it stands, cut where the text encoder ends.
    Plain,
}

impl PromptSyntax {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A1111 => "a1111",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for PromptSyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PromptSyntax {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::A1111, Self::Plain].into_iter().find(|syntax| syntax.name() == text);
        known.ok_or_else(|| format!("{text} is no syntax of prompts (there are a1111 and plain)"))
    }
}

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// Text of one weight.
    Text(String, f64),
    /// The next chunk begins.
    Break,
}

/// What the text encoder reads at once: tokens without marks, each with its weight.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) tokens: Vec<u32>,
    pub(crate) weights: Vec<f64>,
}

/// A bracket's factor.
const STRONGER: f64 = 1.1;

/// How many tokens after a comma go with what follows into the next chunk, rather than be cut from it.
const BACKTRACK: usize = 20;

/// What separates two chunks.
const BREAK: &str = "BREAK";

/// The pieces of a prompt; neighbours differ in weight.
///
/// # Errors
/// On prompt editing (`[a:b:0.5]`, `[a|b]`), which would change the prompt between steps; on `AND`, which would compose several prompts; and
/// on `<lora:…>`, which would change the model.
pub(crate) fn parse(prompt: &str) -> Result<Vec<Piece>, PipelineError> {
    if word_in(prompt, "AND").is_some() {
        let message = "AND composes several prompts in other tools, which is not supported: write it in small letters, or a comma";
        return Err(PipelineError::Request(message.into()));
    }
    let tag = prompt.find("<lora:").and_then(|at| prompt[at..].split_once('>'));
    if let Some((tag, _)) = tag.filter(|(tag, _)| !tag[1..].contains('<')) {
        let message = format!("{tag}> names a LoRA, which is part of the model's files and not of a prompt");
        return Err(PipelineError::Request(message));
    }
    if !prompt.contains(['(', ')', '[', ']']) && break_in(prompt).is_none() {
        return Ok(vec![Piece::Text(prompt.to_owned(), 1.0)]);
    }
    let mut pieces = Pieces::default();
    // Where brackets are open: the number of pieces before, and the place in the text.
    let (mut round, mut square): (Vec<usize>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(first) = prompt[at..].chars().next() {
        let rest = &prompt[at..];
        let mut length = first.len_utf8();
        match first {
            '\\' => {
                // A backslash before anything else disappears.
                let escaped = rest[1..].chars().next().filter(|c| "()[]\\".contains(*c));
                pieces.text(escaped.map_or("", |_| &rest[1..2]));
                length += usize::from(escaped.is_some());
            }
            '(' => round.push(pieces.0.len()),
            '[' => square.push((pieces.0.len(), at)),
            ')' if !round.is_empty() => pieces.scale(round.pop(), STRONGER),
            ']' if !square.is_empty() => {
                let open = square.pop();
                let inside = open.map_or("", |(_, start)| &prompt[start + 1..at]);
                check_editing(inside)?;
                pieces.scale(open.map(|(from, _)| from), 1.0 / STRONGER);
            }
            ':' if !round.is_empty() => match explicit_weight(rest) {
                Some((weight, end)) => {
                    pieces.scale(round.pop(), weight);
                    length = end;
                }
                None => pieces.text(":"),
            },
            ')' | ']' | ':' => pieces.text(&rest[..1]),
            _ => {
                length = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                pieces.text(&rest[..length]);
            }
        }
        at += length;
    }
    round.into_iter().for_each(|from| pieces.scale(Some(from), STRONGER));
    square.into_iter().for_each(|(from, _)| pieces.scale(Some(from), 1.0 / STRONGER));
    let finite = |piece: &Piece| !matches!(piece, Piece::Text(_, weight) if !weight.is_finite());
    if !pieces.0.iter().all(finite) {
        return Err(PipelineError::Request("the prompt's brackets make a weight that is beyond all numbers".into()));
    }
    Ok(pieces.merged())
}

#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    /// Text of weight 1, in which breaks are found.
    fn text(&mut self, mut text: &str) {
        while let Some(at) = break_in(text) {
            self.0.push(Piece::Text(text[..at].trim_end().to_owned(), 1.0));
            self.0.push(Piece::Break);
            text = text[at + BREAK.len()..].trim_start();
        }
        self.0.push(Piece::Text(text.to_owned(), 1.0));
    }

    /// Multiplies the weights of all pieces from there on.
    fn scale(&mut self, from: Option<usize>, factor: f64) {
        for piece in self.0.iter_mut().skip(from.unwrap_or(usize::MAX)) {
            if let Piece::Text(_, weight) = piece {
                *weight *= factor;
            }
        }
    }

    #[allow(clippy::float_cmp, reason = "made by the same operations")]
    fn merged(self) -> Vec<Piece> {
        let mut merged: Vec<Piece> = Vec::new();
        for piece in self.0 {
            match (merged.last_mut(), &piece) {
                (_, Piece::Text(text, _)) if text.is_empty() => {}
                (Some(Piece::Text(before, a)), Piece::Text(text, b)) if a == b => before.push_str(text),
                _ => merged.push(piece),
            }
        }
        merged
    }
}

/// Where the first `BREAK` stands, as a word by itself.
fn break_in(text: &str) -> Option<usize> {
    word_in(text, BREAK)
}

/// Where a word first stands by itself.
fn word_in(text: &str, wanted: &str) -> Option<usize> {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(wanted)
        .map(|(at, _)| at)
        .find(|at| !word(text[..*at].chars().next_back()) && !word(text[at + wanted.len()..].chars().next()))
}

/// A weight and its bracket, `:1.2)`, at the beginning of a text; the number, and where it ends.
fn explicit_weight(text: &str) -> Option<(f64, usize)> {
    let end = text.find(')')?;
    Some((number(&text[1..end])?, end + 1))
}

fn number(text: &str) -> Option<f64> {
    let plain = text.trim().chars().all(|c| c.is_ascii_digit() || "+-.".contains(c));
    text.trim().parse::<f64>().ok().filter(|weight| plain && weight.is_finite())
}

/// Refuses what would be another prompt at every step there.
fn check_editing(inside: &str) -> Result<(), PipelineError> {
    let timed = inside.rsplit_once(':').is_some_and(|(_, when)| number(when).is_some());
    if timed || inside.contains('|') {
        return Err(PipelineError::Request(format!(
            "[{inside}] changes the prompt between steps in other tools, which is not supported (\\[ is a bracket as it stands)"
        )));
    }
    Ok(())
}

/// Cuts a prompt into chunks of at most `room` tokens; there is one at least. The tokens after a comma near a chunk's end begin the next
/// one. `tokenize` gives the tokens of a text; those that stand for one word are not torn apart where they fit a chunk.
pub(crate) fn chunks<E>(
    pieces: &[Piece],
    room: usize,
    comma: Option<u32>,
    mut tokenize: impl FnMut(&str) -> Result<Vec<Vec<u32>>, E>,
) -> Result<Vec<Chunk>, E> {
    let mut done = Vec::new();
    let mut chunk = Chunk::default();
    let mut last_comma = None;
    for piece in pieces {
        let Piece::Text(text, weight) = piece else {
            done.push(std::mem::take(&mut chunk));
            last_comma = None;
            continue;
        };
        for word in tokenize(text)? {
            let is_comma = comma.is_some_and(|comma| *word == [comma]);
            let full = chunk.tokens.len() >= room;
            if is_comma && !full {
                last_comma = Some(chunk.tokens.len());
            }
            if full {
                let near = last_comma.filter(|at| room - at <= BACKTRACK && !is_comma);
                let at = near.map_or(room, |at| at + 1);
                let next = Chunk { tokens: chunk.tokens.split_off(at), weights: chunk.weights.split_off(at) };
                done.push(std::mem::replace(&mut chunk, next));
                last_comma = None;
            }
            if word.len() <= room && chunk.tokens.len() + word.len() > room {
                done.push(std::mem::take(&mut chunk));
                last_comma = None;
            }
            for token in word {
                if chunk.tokens.len() >= room {
                    done.push(std::mem::take(&mut chunk));
                }
                chunk.tokens.push(token);
                chunk.weights.push(*weight);
            }
        }
    }
    if !chunk.tokens.is_empty() || done.is_empty() {
        done.push(chunk);
    }
    Ok(done)
}

/// Multiplies each token's channels by its weight, and then all by what gives them their old mean, as AUTOMATIC1111's web UI does for
/// each chunk and each encoder by itself ("Original" emphasis). Weights of one leave them as they are, bit for bit.
#[allow(clippy::cast_possible_truncation, reason = "computed in f64, kept as f32")]
pub(crate) fn emphasize(hidden_states: &mut [f32], weights: &[f64]) {
    if weights.iter().all(|weight| weight.to_bits() == 1.0_f64.to_bits()) {
        return;
    }
    let channels = hidden_states.len() / weights.len();
    let sum = |states: &[f32]| states.iter().map(|v| f64::from(*v)).sum::<f64>();
    let before = sum(hidden_states);
    let weighted = |(states, weight): (&[f32], &f64)| sum(states) * weight;
    let after: f64 = hidden_states.chunks(channels).zip(weights).map(weighted).sum();
    // Only states that are all zero have no mean to restore.
    let restore = if after == 0.0 { 1.0 } else { before / after };
    for (states, weight) in hidden_states.chunks_mut(channels).zip(weights) {
        states.iter_mut().for_each(|v| *v = (f64::from(*v) * weight * restore) as f32);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    /// As weights of text, a break being a weight of zero.
    fn pieces(prompt: &str) -> Vec<(String, f64)> {
        let pieces = parse(prompt).unwrap().into_iter();
        let pieces = pieces.map(|piece| match piece {
            Piece::Text(text, weight) => (text, (weight * 1e9).round() / 1e9),
            Piece::Break => ("BREAK".to_owned(), 0.0),
        });
        pieces.collect()
    }

    fn expect(prompt: &str, wanted: &[(&str, f64)]) {
        let wanted: Vec<_> = wanted.iter().map(|(text, weight)| ((*text).to_owned(), *weight)).collect();
        assert_eq!(pieces(prompt), wanted, "{prompt}");
    }

    #[test]
    fn text_as_it_stands() {
        for prompt in ["", "a red fox", "12:30, a\\b \\\\ {x} a|b <tok:1>", "BREAKFAST unBREAK BREAK_", "ж:1.2"] {
            expect(prompt, &[(prompt, 1.0)]);
        }
    }

    #[test]
    fn brackets_weigh() {
        expect("a (red) fox", &[("a ", 1.0), ("red", 1.1), (" fox", 1.0)]);
        expect("((red)) [fox]", &[("red", 1.21), (" ", 1.0), ("fox", 0.909_090_909)]);
        expect("(red:1.3)(: 0.5 )(fox:.5)( cat :-1)", &[("red", 1.3), ("fox", 0.5), (" cat ", -1.0)]);
        expect("((red:2) fox:3)", &[("red", 6.0), (" fox", 3.0)]);
        expect("([red])", &[("red", 1.0)]);
        expect("(a)(b)", &[("ab", 1.1)]);
        // The two kinds do not hold each other.
        expect("(a [b) c]", &[("a ", 1.1), ("b", 1.0), (" c", 0.909_090_909)]);
        expect("(日本:1.2)語", &[("日本", 1.2), ("語", 1.0)]);
    }

    #[test]
    fn brackets_that_nobody_opens_or_closes() {
        expect("a (red [fox", &[("a ", 1.0), ("red ", 1.1), ("fox", 1.0)]);
        expect("a) red] fox:2)", &[("a) red] fox:2)", 1.0)]);
        expect(
            "(a:b) (c:1.2.3) (d:) (e:inf)",
            &[("a:b", 1.1), (" ", 1.0), ("c:1.2.3", 1.1), (" ", 1.0), ("d:", 1.1), (" ", 1.0), ("e:inf", 1.1)],
        );
        expect("()[]", &[]);
    }

    #[test]
    fn escapes() {
        expect(r"a \(red\) \[fox\]", &[("a (red) [fox]", 1.0)]);
        expect(r"(red \(fox\):1.5)", &[("red (fox)", 1.5)]);
        expect(r"(a\\b\c)", &[(r"a\bc", 1.1)]);
        expect(r"(red\)", &[("red)", 1.1)]);
        expect("(red\\", &[("red", 1.1)]);
    }

    #[test]
    fn breaks() {
        expect("a fox  BREAK\na cat", &[("a fox", 1.0), ("BREAK", 0.0), ("a cat", 1.0)]);
        expect("(a BREAK b:2)", &[("a", 2.0), ("BREAK", 0.0), ("b", 2.0)]);
        expect("BREAK", &[("BREAK", 0.0)]);
    }

    #[test]
    fn editing_is_refused() {
        for prompt in ["a [red:blue:0.5] fox", "[fox:3]", "[a|b]", "[:blue: .5 ]"] {
            let message = parse(prompt).unwrap_err().to_string();
            assert!(message.contains("between steps"), "{message}");
        }
        assert!(parse("[see (x:1.2)] [12:a] (a|b)").is_ok());
    }

    #[test]
    fn what_other_tools_do_with_a_prompt_besides_is_refused() {
        for (prompt, part) in
            [("a cat AND a dog", "composes"), ("a <lora:style:0.8> cat", "<lora:style:0.8> names a LoRA")]
        {
            let message = parse(prompt).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        assert!(parse("a cat and a dog, SAND, AND_1, <lora: x, <b>").is_ok());
    }

    /// Tokens are characters; a comma is 44, and a capital letter a word of as many tokens as its place in the alphabet.
    fn cut(prompt: &str, room: usize) -> Vec<String> {
        let word = |c: char| vec![u32::from(c); if c.is_ascii_uppercase() { c as usize - 64 } else { 1 }];
        let tokens = |text: &str| Ok::<_, ()>(text.chars().map(word).collect());
        let chunks = chunks(&parse(prompt).unwrap(), room, Some(44), tokens).unwrap();
        assert!(chunks.iter().all(|chunk| chunk.tokens.len() == chunk.weights.len()));
        chunks.iter().map(|chunk| chunk.tokens.iter().map(|c| char::from_u32(*c).unwrap()).collect()).collect()
    }

    #[test]
    fn chunks_end_at_their_room_a_comma_or_a_break() {
        assert_eq!(cut("", 5), [""]);
        assert_eq!(cut("abcde", 5), ["abcde"]);
        assert_eq!(cut("abcdefghijk", 5), ["abcde", "fghij", "k"]);
        assert_eq!(cut("ab,cdefghi", 5), ["ab,", "cdefg", "hi"]);
        // A comma that does not fit itself moves nothing.
        assert_eq!(cut("a,cde,fg", 5), ["a,cde", ",fg"]);
        assert_eq!(cut("ab,de", 5), ["ab,de"]);
        assert_eq!(cut("a(b)cdef", 5), ["abcde", "f"]);
        assert_eq!(cut("ab BREAK cd BREAK", 5), ["ab", "cd"]);
        assert_eq!(cut("BREAK BREAK cd", 5), ["", "", "cd"]);
        let (near, far) = ("b".repeat(19), "b".repeat(20));
        assert_eq!(
            cut(&format!("{}a,{near}c", "x".repeat(9)), 30),
            [format!("{}a,", "x".repeat(9)), format!("{near}c")]
        );
        assert_eq!(
            cut(&format!("{}a,{far}c", "x".repeat(8)), 30),
            [format!("{}a,{far}", "x".repeat(8)), "c".to_owned()]
        );
    }

    #[test]
    fn words_of_several_tokens_stay_together() {
        assert_eq!(cut("abCd", 5), ["abCCC", "d"]);
        assert_eq!(cut("abcCd", 5), ["abc", "CCCd"]);
        assert_eq!(cut("a,bcdCe", 5), ["a,", "bcd", "CCCe"]);
        assert_eq!(cut("a,bcC", 5), ["a,bc", "CCC"]);
        // Unless no chunk can hold them.
        assert_eq!(cut("aGb", 5), ["aGGGG", "GGGb"]);
    }

    #[test]
    fn the_mean_stays() {
        let before = [1.0, 2.0, 3.0, 6.0];
        let mut states = before;
        emphasize(&mut states, &[1.0, 1.0]);
        assert_eq!(states, before);
        emphasize(&mut states, &[1.0, 2.0]);
        // 1, 2, 6, 12 have the sum 21, where there was 12.
        assert_eq!(states, [1.0, 2.0, 6.0, 12.0].map(|v: f32| v * 12.0 / 21.0));
        let mut zeros = [0.0; 4];
        emphasize(&mut zeros, &[1.0, 2.0]);
        assert_eq!(zeros, [0.0; 4]);
    }
}
