//! The table `renames.txt`, laid out for one model's number of levels and layers.

use crate::config::{MOST_LAYERS, MOST_LEVELS};
use std::collections::HashMap;

const TABLE: &str = include_str!("renames.txt");

/// The bounds of the table's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extents {
    pub(crate) levels: usize,
    /// Layers of each level, or of a text encoder.
    pub(crate) layers: usize,
    /// Whether each of diffusers' up blocks has attention.
    pub(crate) attention: Vec<bool>,
}

impl Extents {
    /// No more levels and layers than configurations may have, and one more, so that what says so many is refused; and no more layers than so
    /// many tensors can be of, for each level has all of them. Otherwise a file that has many levels of one layer and one level of many would
    /// make names of each layer in each level.
    pub(crate) fn within(mut self, tensors: usize) -> Self {
        self.levels = self.levels.min(MOST_LEVELS + 1);
        self.layers = self.layers.min(MOST_LAYERS + 1).min(tensors / self.levels.max(1));
        self
    }
}

/// How a tensor of the file becomes one of diffusers'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Same,
    Pointwise,
    Transposed,
    /// Part `index` of `of` equal parts along the rows.
    Rows {
        index: usize,
        of: usize,
    },
}

/// A tensor's name in the other layout, and how its form differs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renamed {
    pub(crate) name: String,
    pub(crate) form: Form,
}

/// One part's names in both directions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Renames {
    to_diffusers: HashMap<String, Vec<Renamed>>,
    to_ldm: HashMap<String, Renamed>,
    /// Bytes of the longest name on either side.
    longest: usize,
}

impl Renames {
    /// A section of the table, for a model of these extents.
    pub(crate) fn new(section: &str, extents: &Extents) -> Self {
        let mut renames = Self::default();
        for line in lines(section) {
            let over = |holes: &[&str], count: usize| {
                if holes.iter().any(|hole| mentions(line, hole)) { count } else { 1 }
            };
            for b in 0..over(&["b", "r"], extents.levels) {
                for l in 0..over(&["l"], extents.layers) {
                    for k in 0..over(&["k"], extents.layers + 1) {
                        renames.add(line, &Place { b, l, k, extents });
                    }
                }
            }
        }
        renames
    }

    fn add(&mut self, line: &str, place: &Place<'_>) {
        let (line, condition) = line.split_once(" | ").unwrap_or((line, ""));
        let (line, group) = line.split_once(" > ").unwrap_or((line, ""));
        let (ldm, diffusers) = line.split_once(" : ").expect("a line of the table has a colon");
        if matches!(condition, "attention" | "plain") && place.has_attention() != (condition == "attention") {
            return;
        }
        let (ldm, diffusers) = (place.fill(ldm), place.fill(diffusers));
        if group.is_empty() {
            self.insert(&ldm, &diffusers, condition);
            return;
        }
        for line in lines(group) {
            let (line, condition) = line.split_once(" | ").unwrap_or((line, ""));
            let (below, other) = line.split_once(" : ").expect("a line of the table has a colon");
            self.insert(&format!("{ldm}.{below}"), &format!("{diffusers}.{other}"), condition);
        }
    }

    fn insert(&mut self, ldm: &str, diffusers: &str, condition: &str) {
        let all: Vec<&str> = diffusers.split(" + ").collect();
        for (index, name) in all.iter().enumerate() {
            self.longest = self.longest.max(name.len()).max(ldm.len());
            let form = match condition {
                "pointwise" => Form::Pointwise,
                "transposed" => Form::Transposed,
                _ if all.len() > 1 => Form::Rows { index, of: all.len() },
                _ => Form::Same,
            };
            self.to_ldm.insert((*name).to_owned(), Renamed { name: ldm.to_owned(), form });
            let renamed = Renamed { name: (*name).to_owned(), form };
            self.to_diffusers.entry(ldm.to_owned()).or_default().push(renamed);
        }
    }

    /// What diffusers calls a tensor of the file, or the parts of it.
    pub(crate) fn diffusers(&self, ldm: &str) -> Vec<Renamed> {
        let Some((found, rest)) = longest(&self.to_diffusers, self.longest, ldm) else { return Vec::new() };
        found.iter().map(|renamed| Renamed { name: format!("{}{rest}", renamed.name), form: renamed.form }).collect()
    }

    /// What the file calls a tensor of diffusers'.
    pub(crate) fn ldm(&self, diffusers: &str) -> Option<Renamed> {
        let (found, rest) = longest(&self.to_ldm, self.longest, diffusers)?;
        Some(Renamed { name: format!("{}{rest}", found.name), form: found.form })
    }
}

/// The entry for the longest beginning of a name, with what follows it. No entry has more than `most` bytes, so no more of a name is
/// looked at, be it as long as it likes.
fn longest<'a, T>(entries: &'a HashMap<String, T>, most: usize, name: &'a str) -> Option<(&'a T, &'a str)> {
    let whole = std::iter::once(name.len()).filter(|length| *length <= most);
    let start = &name[..name.floor_char_boundary(most + 1)];
    let ends = whole.chain(start.rmatch_indices('.').map(|(at, _)| at));
    ends.map(|end| name.split_at(end)).find_map(|(start, rest)| Some((entries.get(start)?, rest)))
}

fn lines(section: &str) -> impl Iterator<Item = &'static str> {
    let heading = format!("[{section}]");
    let mut own = TABLE.lines().skip_while(move |line| **line != *heading);
    own.next();
    own.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether a formula of the line names a number.
fn mentions(line: &str, name: &str) -> bool {
    line.split('{').skip(1).filter_map(|rest| rest.split('}').next()).any(|f| f.split(['+', '*']).any(|n| n == name))
}

struct Place<'a> {
    b: usize,
    l: usize,
    k: usize,
    extents: &'a Extents,
}

impl Place<'_> {
    fn has_attention(&self) -> bool {
        self.extents.attention.get(self.b).copied().unwrap_or(false)
    }

    fn fill(&self, pattern: &str) -> String {
        let mut pieces = pattern.split('{');
        let mut filled = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (formula, rest) = piece.split_once('}').expect("braces are closed");
            filled += &self.value(formula).to_string();
            filled += rest;
        }
        filled
    }

    fn value(&self, formula: &str) -> usize {
        let number = |name: &str| match name {
            "b" => self.b,
            "r" => self.extents.levels - 1 - self.b,
            "l" => self.l,
            "k" => self.k,
            "n" => self.extents.layers,
            "m" => self.extents.layers + 1,
            digits => digits.parse().expect("a number of the table"),
        };
        formula.split('+').map(|product| product.split('*').map(number).product::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stable_diffusion_1() {
        let extents = Extents { levels: 4, layers: 2, attention: vec![false, true, true, true] };
        let unet = Renames::new("unet", &extents);
        for (ldm, diffusers) in [
            ("input_blocks.0.0.bias", "conv_in.bias"),
            ("input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"),
            ("input_blocks.4.0.skip_connection.weight", "down_blocks.1.resnets.0.conv_shortcut.weight"),
            ("input_blocks.4.1.proj_in.weight", "down_blocks.1.attentions.0.proj_in.weight"),
            ("middle_block.2.emb_layers.1.bias", "mid_block.resnets.1.time_emb_proj.bias"),
            ("output_blocks.2.1.conv.bias", "up_blocks.0.upsamplers.0.conv.bias"),
            ("output_blocks.5.2.conv.bias", "up_blocks.1.upsamplers.0.conv.bias"),
            (
                "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight",
                "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
            ),
        ] {
            assert_eq!(unet.diffusers(ldm), [Renamed { name: diffusers.into(), form: Form::Same }]);
            assert_eq!(unet.ldm(diffusers), Some(Renamed { name: ldm.into(), form: Form::Same }));
        }
        assert!(unet.diffusers("joint_blocks.0.x").is_empty());
        let vae = Renames::new("vae", &extents);
        let found = vae.ldm("decoder.mid_block.attentions.0.to_out.0.weight").expect("a name of the table");
        assert_eq!((&*found.name, found.form), ("decoder.mid.attn_1.proj_out.weight", Form::Pointwise));
        let found = vae.diffusers("decoder.up.3.block.2.conv1.weight");
        assert_eq!(found[0].name, "decoder.up_blocks.0.resnets.2.conv1.weight");
    }
}
