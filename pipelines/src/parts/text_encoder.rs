//! From a prompt to what the network reads of it.

use super::prompt::{self, Chunk, PromptSyntax};
use crate::devices::residency::{Host, Places, add, lock};
use crate::error::PipelineError;
use crate::networks::{Network, TextInput};
use graph::{Graph, MemoryUse, Plan, Rate, Scope};
use models::{
    Checkpoint, ClipHiddenState, ClipTextConfig, Learned, LearnedWeights, ModelFiles, ModelIndex, T5Config,
    TextualInversion, Tokenizer, Vocabulary, clip_text_model, clip_text_model_with_projection, t5_encoder_model,
};
use std::sync::{Arc, Mutex};

/// A prompt as the network reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EncodedPrompt {
    /// `[S, D]`.
    pub(crate) hidden_states: Vec<f32>,
    /// One for the whole prompt; empty where the network takes none.
    pub(crate) text_embeds: Vec<f32>,
    /// `[S]`.
    pub(crate) attention_mask: Vec<f32>,
}

/// A prompt cut into what the encoders read at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tokenized {
    /// Of each encoder.
    parts: Vec<Vec<Chunk>>,
    /// Whether there is no text at all.
    empty: bool,
}

impl Tokenized {
    /// How often the encoders must run.
    pub(crate) fn chunks(&self) -> usize {
        self.parts.iter().map(Vec::len).max().unwrap_or(1)
    }
}

/// A prompt with all that its encoding depends on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompt {
    pub(crate) tokenized: Tokenized,
    /// As many as the longer of the prompt and the negative prompt has: both are one batch.
    pub(crate) chunks: usize,
    /// Layers that the prompt leaves out at the end of CLIP.
    pub(crate) clip_skip: usize,
    /// Whether this is what the picture should not show.
    pub(crate) negative: bool,
}

/// As many encoded prompts are kept.
const KNOWN: usize = 16;

/// One or two text encoders, the channels of which stand side by side.
pub(crate) struct TextEncoders {
    parts: Vec<TextEncoder>,
    /// What was encoded last, the latest first.
    known: Mutex<Vec<(Prompt, Arc<EncodedPrompt>)>>,
    /// Whether an empty negative prompt is read as zeros, not as an empty text.
    zeros_for_empty: bool,
    /// How prompts may be read: of CLIP beside a UNet, as AUTOMATIC1111's web UI reads them.
    weighs: bool,
    /// What the model says it draws.
    vocabulary: Option<Vocabulary>,
}

struct TextEncoder {
    folder: &'static str,
    tokenizer: Tokenizer,
    config: Config,
    weights: LearnedWeights,
    left_over: Vec<String>,
    form: Form,
    /// By the number of layers that a plan can skip.
    plans: Places<usize, Box<dyn Plan>>,
}

/// Where a pipeline keeps an encoder and its tokenizer.
#[derive(Debug, Clone, Copy)]
struct Folders {
    encoder: &'static str,
    tokenizer: &'static str,
}

const FIRST: Folders = Folders { encoder: "text_encoder", tokenizer: "tokenizer" };
const SECOND: Folders = Folders { encoder: "text_encoder_2", tokenizer: "tokenizer_2" };

/// Either family.
enum Config {
    Clip(ClipTextConfig),
    /// Its positions are relative: how many tokens it reads is the pipeline's choice.
    T5 {
        config: T5Config,
        tokens: usize,
    },
}

impl Config {
    fn channels(&self) -> usize {
        match self {
            Self::Clip(config) => config.hidden_size,
            Self::T5 { config, .. } => config.d_model,
        }
    }

    fn vocab_size(&self) -> usize {
        match self {
            Self::Clip(config) => config.vocab_size,
            Self::T5 { config, .. } => config.vocab_size,
        }
    }

    /// Channels of the embedding of a whole prompt.
    fn projection(&self) -> Option<usize> {
        match self {
            Self::Clip(config) => Some(config.projection_dim),
            Self::T5 { .. } => None,
        }
    }
}

/// What a network takes of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The last hidden states; `masked` where padding is hidden from the encoder.
    Last { masked: bool },
    /// The hidden states of the last layer but one, without the final layer norm.
    Penultimate,
    /// Those of [`Form::Penultimate`], and the embedding of the whole prompt.
    Projected,
}

impl TextEncoders {
    /// Reads and checks what this network wants.
    pub(crate) fn load(
        files: &ModelFiles,
        index: &ModelIndex,
        network: &Network,
        wanted: TextInput,
    ) -> Result<Self, PipelineError> {
        let parts = if wanted.pooled.is_some() {
            // A refiner of SDXL has the second alone.
            let mut parts = Vec::new();
            if index.component("text_encoder").is_some() {
                index.require("text_encoder", &["CLIPTextModel"])?;
                parts.push(TextEncoder::load(files, FIRST, Form::Penultimate)?);
            }
            index.require("text_encoder_2", &["CLIPTextModelWithProjection"])?;
            parts.push(TextEncoder::load(files, SECOND, Form::Projected)?);
            parts
        } else {
            let masked = wanted.masks_padding;
            let known: &[&str] = if masked { &["CLIPTextModel", "T5EncoderModel"] } else { &["CLIPTextModel"] };
            let class = &index.require("text_encoder", known)?.class_name;
            let place = FIRST;
            // diffusers' max_sequence_length of PixArt-Σ and -α.
            let tokens = if index.class_name.starts_with("PixArtSigma") { 300 } else { 120 };
            vec![match &**class {
                "T5EncoderModel" => TextEncoder::load_t5(files, place, tokens)?,
                _ => TextEncoder::load(files, place, Form::Last { masked })?,
            }]
        };
        // Without the field, diffusers' default.
        let field = index.options.get("force_zeros_for_empty_prompt").and_then(serde_json::Value::as_bool);
        let weighs = !wanted.masks_padding;
        let zeros_for_empty = wanted.pooled.is_some() && field.unwrap_or(true);
        let vocabulary = Vocabulary::read(files)?;
        let mut encoders = Self { zeros_for_empty, weighs, parts, known: Mutex::default(), vocabulary };
        encoders.check(files, network.folder, wanted)?;
        encoders.learn(files)?;
        Ok(encoders)
    }

    /// Teaches the encoders the words that the model comes with.
    fn learn(&mut self, files: &ModelFiles) -> Result<(), PipelineError> {
        let channels: Vec<usize> = self.parts.iter().map(|part| part.config.channels()).collect();
        for embedding in files.embeddings() {
            if self.parts.iter().any(|part| matches!(part.config, Config::T5 { .. })) {
                return Err(no_clip(files, embedding));
            }
            let learned = embedding.learned(&files.describe(""), &channels)?;
            for (part, learned) in self.parts.iter_mut().zip(learned) {
                learned.map_or(Ok(()), |learned| part.learn(&learned))?;
            }
        }
        Ok(())
    }

    fn check(&self, files: &ModelFiles, folder: &str, wanted: TextInput) -> Result<(), PipelineError> {
        let broken = |message: String| PipelineError::Checkpoint(format!("{}: {message}", files.describe("")));
        let (given, taken) = (self.channels(), wanted.channels);
        if given != taken {
            let what = if self.parts.len() == 1 { "encoder gives" } else { "encoders give" };
            return Err(broken(format!("the text {what} {given} channels and the {folder} takes {taken}")));
        }
        let (given, taken) = (self.pooled_channels(), wanted.pooled);
        if given != taken {
            let [given, taken] = [given, taken].map(|channels| channels.unwrap_or(0));
            return Err(broken(format!(
                "text_encoder_2 projects prompts to {given} channels and the {folder} takes {taken}"
            )));
        }
        if let Some(other) = self.parts.iter().find(|part| part.max_tokens() != self.max_tokens()) {
            let (first, second) = (self.max_tokens(), other.max_tokens());
            return Err(broken(format!("text_encoder reads {first} tokens and {} {second}", other.folder)));
        }
        Ok(())
    }

    /// Channels of every token.
    pub(crate) fn channels(&self) -> usize {
        self.parts.iter().map(|part| part.config.channels()).sum()
    }

    /// Channels of the embedding of a whole prompt, if there is one.
    fn pooled_channels(&self) -> Option<usize> {
        self.parts.iter().find(|part| part.form == Form::Projected).and_then(|part| part.config.projection())
    }

    /// Tokens of every encoded prompt.
    pub(crate) fn max_tokens(&self) -> usize {
        self.parts[0].max_tokens()
    }

    /// Tensors that no encoder reads.
    pub(crate) fn left_over(&self) -> impl Iterator<Item = &String> {
        self.parts.iter().flat_map(|part| &part.left_over)
    }

    /// Memory that the plans hold.
    pub(crate) fn memory(&self) -> MemoryUse {
        self.parts.iter().map(|part| part.plans.memory()).fold(MemoryUse::default(), add)
    }

    /// What their plans will hold for prompts that leave out so many layers.
    pub(crate) fn estimate(&self, host: &Host, clip_skip: usize) -> Result<MemoryUse, PipelineError> {
        let parts = self.parts.iter();
        let parts = parts.map(|part| Ok(host.estimate(&part.graph(part.form, clip_skip)?, &part.weights)));
        parts.collect::<Result<Vec<_>, PipelineError>>().map(|all| all.into_iter().fold(MemoryUse::default(), add))
    }

    /// Whether this many layers can be skipped.
    pub(crate) fn check_skip(&self, skip: usize) -> Result<(), PipelineError> {
        for part in self.parts.iter().filter(|_| skip > 0) {
            let most = part.most_skipped();
            if skip > most {
                let layers = if most == 0 { "none of its layers".to_owned() } else { format!("{most} at most") };
                let message = format!("clip_skip = {skip} is not possible: {} can skip {layers}", part.folder);
                return Err(PipelineError::Request(message));
            }
        }
        Ok(())
    }

    /// Cuts a prompt into chunks by every encoder's tokenizer, and tells how many tokens were left out.
    ///
    /// # Errors
    /// When the prompt cannot be read in this syntax, or no prompt of this model can.
    pub(crate) fn tokenize(
        &self,
        prompt: &str,
        syntax: Option<PromptSyntax>,
    ) -> Result<(Tokenized, usize), PipelineError> {
        if syntax == Some(PromptSyntax::A1111) && !self.weighs {
            let message = "the syntax a1111 is not possible: this model reads prompts as plain text only";
            return Err(PipelineError::Request(message.into()));
        }
        let plain = !self.weighs || syntax == Some(PromptSyntax::Plain);
        let pieces = if plain { Vec::new() } else { prompt::parse(prompt)? };
        let (mut parts, mut dropped) = (Vec::new(), 0);
        for part in &self.parts {
            let room = part.room();
            if plain {
                let mut tokens = part.words(prompt)?.concat();
                dropped = dropped.max(tokens.len().saturating_sub(room));
                tokens.truncate(room);
                parts.push(vec![Chunk { weights: vec![1.0; tokens.len()], tokens }]);
            } else {
                let comma = part.tokenizer.id(",</w>");
                parts.push(prompt::chunks(&pieces, room, comma, |text| part.words(text))?);
            }
        }
        Ok((Tokenized { parts, empty: prompt.is_empty() }, dropped))
    }

    /// Words of a prompt that the model cannot know, where it says what it draws: neither they nor their singular stand there, and the
    /// tokenizer, which was made of the captions of its training, has them in pieces only.
    pub(crate) fn unknown_words(&self, prompt: &str) -> Result<Vec<String>, PipelineError> {
        let Some(vocabulary) = &self.vocabulary else { return Ok(Vec::new()) };
        let prompt = prompt.to_lowercase();
        let mut unknown: Vec<String> = Vec::new();
        for word in prompt.split(|c: char| !c.is_alphanumeric() && c != '\'').map(|word| word.trim_matches('\'')) {
            let is_known = |word: &str| {
                Ok::<_, PipelineError>(vocabulary.has_word(word) || self.parts[0].tokenizer.tokens(word)?.len() <= 1)
            };
            let endings = [("", ""), ("'s", ""), ("s", ""), ("es", ""), ("ies", "y")];
            let mut forms = endings.into_iter().filter_map(|(end, own)| Some(word.strip_suffix(end)?.to_owned() + own));
            let is_known = forms.try_fold(false, |known, form| Ok::<_, PipelineError>(known || is_known(&form)?))?;
            if !is_known && !unknown.iter().any(|known| known == word) {
                unknown.push(word.to_owned());
            }
        }
        Ok(unknown)
    }

    /// A prompt as the network reads it; the last few are kept, so that what was encoded is not encoded again.
    pub(crate) async fn encode(&self, host: &Host, prompt: &Prompt) -> Result<Arc<EncodedPrompt>, PipelineError> {
        if let Some((_, encoded)) = lock(&self.known).iter().find(|(known, _)| known == prompt) {
            return Ok(Arc::clone(encoded));
        }
        let encoded = Arc::new(if prompt.negative && prompt.tokenized.empty && self.zeros_for_empty {
            self.zeros(prompt.chunks)
        } else {
            self.encode_text(host, prompt).await?
        });
        let mut known = lock(&self.known);
        known.truncate(KNOWN - 1);
        known.insert(0, (prompt.clone(), Arc::clone(&encoded)));
        Ok(encoded)
    }

    /// A text by all encoders, whose channels come to stand side by side.
    pub(crate) async fn encode_text(&self, host: &Host, prompt: &Prompt) -> Result<EncodedPrompt, PipelineError> {
        let mut parts = self.parts.iter().zip(&prompt.tokenized.parts);
        let (first, own) = parts.next().expect("there is one at least");
        let mut all = first.encode(host, own, prompt).await?;
        for (part, own) in parts {
            let part = part.encode(host, own, prompt).await?;
            let tokens = all.attention_mask.len();
            let [before, after] =
                [&all, &part].map(|part| part.hidden_states.chunks(part.hidden_states.len() / tokens));
            all.hidden_states = before.zip(after).flat_map(|(a, b)| [a, b].concat()).collect();
            all.text_embeds = part.text_embeds;
        }
        Ok(all)
    }

    /// What every operation of all encoders takes for a chunk, if a prompt with as many layers left out was the last.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn profile(&self, prompt: &Prompt) -> Result<Vec<graph::NodeTime>, PipelineError> {
        let parts = self.parts.iter().map(|part| part.plans.profile(&prompt.clip_skip));
        Ok(parts.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// What stands for no negative prompt.
    fn zeros(&self, chunks: usize) -> EncodedPrompt {
        let tokens = chunks * self.max_tokens();
        EncodedPrompt {
            hidden_states: vec![0.0; tokens * self.channels()],
            text_embeds: vec![0.0; self.pooled_channels().unwrap_or(0)],
            attention_mask: vec![1.0; tokens],
        }
    }
}

/// Why a word cannot be learned.
pub(crate) fn no_clip(files: &ModelFiles, embedding: &TextualInversion) -> PipelineError {
    let (shown, model) = (embedding.shown(), files.describe(""));
    PipelineError::Checkpoint(format!("{shown}: is for CLIP's text encoder, which {model} has not"))
}

impl TextEncoder {
    fn load(files: &ModelFiles, place: Folders, form: Form) -> Result<Self, PipelineError> {
        let path = format!("{}/config.json", place.encoder);
        let config = ClipTextConfig::from_json(&files.describe(&path), &files.read(&path)?)?;
        Self::with_config(files, place, Config::Clip(config), form)
    }

    fn load_t5(files: &ModelFiles, place: Folders, tokens: usize) -> Result<Self, PipelineError> {
        let path = format!("{}/config.json", place.encoder);
        let config = T5Config::from_json(&files.describe(&path), &files.read(&path)?)?;
        Self::with_config(files, place, Config::T5 { config, tokens }, Form::Last { masked: true })
    }

    fn with_config(files: &ModelFiles, place: Folders, config: Config, form: Form) -> Result<Self, PipelineError> {
        let folder = place.encoder;
        let weights = Checkpoint::open(files, folder, None)?;
        let tokenizer = Tokenizer::open(files, place.tokenizer)?;
        let (weights, left_over) = (LearnedWeights::new(weights), Vec::new());
        let mut part = Self { folder, tokenizer, config, weights, left_over, form, plans: Places::default() };
        let (largest, rows) = (part.tokenizer.largest_id(), part.config.vocab_size());
        if largest as usize >= rows {
            let message = format!("the tokenizer has a token {largest} and the text encoder {rows} rows");
            return Err(PipelineError::Checkpoint(format!("{}: {message}", files.describe(folder))));
        }
        // Every checkpoint holds the last layer, whether it is used or not.
        let whole = if form == Form::Penultimate { Form::Last { masked: false } } else { form };
        part.left_over = part.weights.as_stored().check(&part.graph(whole, 0)?.weights())?;
        Ok(part)
    }

    /// Puts the vectors of a word after those of the vocabulary.
    fn learn(&mut self, learned: &Learned<'_>) -> Result<(), PipelineError> {
        let Config::Clip(config) = &mut self.config else { return Ok(()) };
        let rows = config.vocab_size..config.vocab_size + learned.rows;
        #[allow(clippy::cast_possible_truncation, reason = "ids stay far below 2²⁴")]
        let added = self.tokenizer.add(learned.token, rows.start as u32..rows.end as u32);
        added.map_err(|error| PipelineError::Checkpoint(format!("{}: {}", learned.shown, error.message)))?;
        self.weights.learn(learned);
        config.vocab_size = rows.end;
        // transformers takes the largest id for the end mark where eos_token_id is 2. The words' ids are larger, so the mark is named.
        if let (2, Some(end)) = (config.eos_token_id, self.tokenizer.end_mark()) {
            config.eos_token_id = end;
        }
        Ok(())
    }

    fn max_tokens(&self) -> usize {
        let longest = match &self.config {
            Config::Clip(config) => config.max_position_embeddings,
            // The tokenizer's own limit is that of T5's training, which diffusers leaves aside too.
            Config::T5 { tokens, .. } => return *tokens,
        };
        self.tokenizer.max_length().map_or(longest, |own| own.min(longest))
    }

    /// Layers that may be left out.
    fn most_skipped(&self) -> usize {
        match &self.config {
            Config::Clip(config) if matches!(self.form, Form::Last { .. }) => config.num_hidden_layers,
            Config::Clip(config) => config.num_hidden_layers - 1,
            Config::T5 { .. } => 0,
        }
    }

    /// With a number of layers to skip, there is a second output, `skipped`.
    fn graph(&self, form: Form, skip: usize) -> Result<Graph, PipelineError> {
        let s = Scope::root();
        let input = |name| s.input(name, &[1, self.max_tokens()], Rate::Step);
        let ids = input("input_ids");
        let config = match &self.config {
            Config::Clip(config) => config,
            Config::T5 { config, .. } => {
                let hidden = t5_encoder_model(&s, config, &ids, Some(&input("attention_mask")));
                return Ok(s.finish(&[("hidden_states", &hidden)])?);
            }
        };
        let mask = (form == Form::Last { masked: true }).then(|| input("attention_mask"));
        let hidden = |state| clip_text_model(&s, config, &ids, mask.as_ref(), state);
        let mut outputs = match form {
            Form::Last { .. } => vec![("hidden_states", hidden(ClipHiddenState::Last))],
            Form::Penultimate => vec![("hidden_states", hidden(ClipHiddenState::Raw(1)))],
            Form::Projected => {
                let pooled_at = input("pooled_at");
                let (hidden, embeds) = clip_text_model_with_projection(&s, config, &ids, None, &pooled_at);
                vec![("hidden_states", hidden), ("text_embeds", embeds)]
            }
        };
        if skip > 0 {
            let last = matches!(form, Form::Last { .. });
            outputs.push((
                "skipped",
                hidden(if last { ClipHiddenState::Skip(skip) } else { ClipHiddenState::Raw(skip + 1) }),
            ));
        }
        let outputs: Vec<_> = outputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        Ok(s.finish(&outputs)?)
    }

    /// The tokens of a text without marks, those of a learned word together.
    fn words(&self, text: &str) -> Result<Vec<Vec<u32>>, PipelineError> {
        Ok(match &self.config {
            Config::Clip(_) => self.tokenizer.words(text)?,
            // diffusers' text preprocessing, without its cleaning of HTML and URLs, which it leaves out too where bs4 or ftfy are missing.
            Config::T5 { .. } => self.tokenizer.words(text.to_lowercase().trim())?,
        })
    }

    /// Tokens between the marks of a chunk.
    fn room(&self) -> usize {
        let [before, after] = self.tokenizer.marks();
        self.max_tokens().saturating_sub(before + after)
    }

    /// Every chunk by itself, one after the other, and empty ones up to their number. The embedding of the whole prompt is that of the
    /// first chunk.
    async fn encode(&self, host: &Host, own: &[Chunk], prompt: &Prompt) -> Result<EncodedPrompt, PipelineError> {
        let planned = prompt.clip_skip;
        // Only the prompt leaves layers out: diffusers' negative prompts do not.
        let skip = if prompt.negative { 0 } else { planned };
        let make = async || host.plan(&self.graph(self.form, planned)?, &self.weights).await;
        let work = async |plan: &mut Box<dyn Plan>| {
            let empty = Chunk::default();
            let mut all = EncodedPrompt::default();
            for i in 0..prompt.chunks {
                let encoded = self.encode_chunk(plan.as_mut(), own.get(i).unwrap_or(&empty), skip).await?;
                all.hidden_states.extend(encoded.hidden_states);
                all.attention_mask.extend(encoded.attention_mask);
                if i == 0 {
                    all.text_embeds = encoded.text_embeds;
                }
            }
            Ok(all)
        };
        self.plans.at(&host.shared, &planned).with(make, work).await
    }

    /// One run of the plan.
    async fn encode_chunk(
        &self,
        plan: &mut dyn Plan,
        chunk: &Chunk,
        skip: usize,
    ) -> Result<EncodedPrompt, PipelineError> {
        let length = self.max_tokens();
        let encoding = self.tokenizer.framed(&chunk.tokens, length)?;
        let attention_mask = encoding.mask_f32();
        plan.write("input_ids", &encoding.ids_f32())?;
        match self.form {
            Form::Last { masked: true } => plan.write("attention_mask", &attention_mask)?,
            Form::Last { masked: false } | Form::Penultimate => {}
            Form::Projected => {
                let mut pooled_at = vec![0.0; encoding.ids.len()];
                if let Config::Clip(config) = &self.config {
                    pooled_at[config.pooled_token(&encoding.ids)] = 1.0;
                }
                plan.write("pooled_at", &pooled_at)?;
            }
        }
        plan.run_async().await?;
        let text_embeds = if self.form == Form::Projected { plan.read_async("text_embeds").await? } else { Vec::new() };
        let mut hidden_states = plan.read_async(if skip > 0 { "skipped" } else { "hidden_states" }).await?;
        let [before, _] = self.tokenizer.marks();
        let mut weights = vec![1.0; length];
        weights[before..before + chunk.weights.len()].copy_from_slice(&chunk.weights);
        prompt::emphasize(&mut hidden_states, &weights);
        Ok(EncodedPrompt { hidden_states, text_embeds, attention_mask })
    }
}
