//! What diffusers keeps of PEFT's configuration in a file's metadata: `{"unet.lora_alpha": 8, …}`.

use super::spelling::place;
use serde_json::{Map, Value};
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct Settings {
    fields: Map<String, Value>,
    /// Every `alpha_pattern`, by its field's name.
    alphas: HashMap<String, Patterns>,
}

/// Patterns of modules' names with a number each, as a tree of the names' parts, the last part first: a module is looked up in one walk
/// along its name, however many patterns there are.
#[derive(Debug, Default)]
struct Patterns {
    /// By the node before and the part.
    children: HashMap<(usize, String), usize>,
    /// Of each node: the number for names that end so, and for the name that is just this.
    numbers: Vec<[Option<f64>; 2]>,
}

impl Patterns {
    fn new(fields: &Map<String, Value>) -> Self {
        let mut patterns = Self { children: HashMap::new(), numbers: vec![[None; 2]] };
        // The longest spelling of one name is the most particular one; PEFT takes the first, in an order that JSON does not promise.
        let mut all: Vec<(&String, &Value)> = fields.iter().collect();
        all.sort_by_key(|(key, _)| key.len());
        for (key, number) in all {
            let (Some((name, whole)), Some(number)) = (literal(key), number.as_f64()) else { continue };
            let mut node = 0;
            for part in name.rsplit('.') {
                let next = patterns.numbers.len();
                node = *patterns.children.entry((node, part.to_owned())).or_insert(next);
                if node == next {
                    patterns.numbers.push([None; 2]);
                }
            }
            patterns.numbers[node][usize::from(whole)] = Some(number);
        }
        patterns
    }

    /// The number of the longest pattern that is the name or follows a dot in it, which is PEFT's rule.
    fn find(&self, name: &str) -> Option<f64> {
        let (mut node, mut found) = (0, None);
        let mut parts = name.rsplit('.').peekable();
        while let Some(part) = parts.next() {
            let Some(next) = self.children.get(&(node, part.to_owned())) else { break };
            node = *next;
            let [end, whole] = self.numbers[node];
            let whole = whole.filter(|_| parts.peek().is_none());
            found = whole.or(end).or(found);
        }
        found
    }
}

/// Fields that map names of modules, or their endings, to numbers.
const PATTERNS: &[&str] = &["alpha_pattern", "rank_pattern"];

impl Settings {
    /// Reads the text of `source`.
    pub(super) fn read(source: &str, text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::default()) };
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|_| format!("has a broken {source}: it is not the JSON object that PEFT writes"))?;
        for (name, value) in &fields {
            let field = name.rsplit('.').next().unwrap_or(name);
            match value {
                Value::Object(patterns) if PATTERNS.contains(&field) => {
                    if let Some(pattern) = patterns.keys().find(|key| literal(key).is_none()) {
                        return Err(format!(
                            "has the pattern {pattern:?} in {name} of its {source}, which is not a module's name"
                        ));
                    }
                    if let Some((key, _)) = patterns.iter().find(|(_, number)| number.as_f64().is_none()) {
                        return Err(format!("has no number for {key:?} in {name} of its {source}"));
                    }
                }
                Value::Null => {}
                _ if PATTERNS.contains(&field) => return Err(format!("has no object for {name} in its {source}")),
                _ if ["lora_alpha", "r"].contains(&field) && value.as_f64().is_none() => {
                    return Err(format!("has no number for {name} in its {source}"));
                }
                _ => {}
            }
        }
        let patterns = fields.iter().filter(|(name, _)| name.rsplit('.').next() == Some("alpha_pattern"));
        let patterns = patterns.filter_map(|(name, value)| Some((name.clone(), Patterns::new(value.as_object()?))));
        let alphas = patterns.collect();
        Ok(Self { fields, alphas })
    }

    /// alpha / rank, or alpha / √rank where the file says so (Kalajdzievski 2023); 1 where it says nothing.
    pub(super) fn scale(&self, module: &str, rank: usize) -> f64 {
        let (part, name) = place(module);
        let field = |name: &str| self.fields.get(&format!("{part}.{name}")).or_else(|| self.fields.get(name));
        // A part's own patterns go before those of the whole, be they null.
        let own = format!("{part}.alpha_pattern");
        let patterns =
            if self.fields.contains_key(&own) { self.alphas.get(&own) } else { self.alphas.get("alpha_pattern") };
        let own = patterns.and_then(|patterns| patterns.find(name));
        let Some(alpha) = own.or_else(|| field("lora_alpha").and_then(Value::as_f64)) else { return 1.0 };
        let rank = rank as f64;
        if field("use_rslora") == Some(&Value::Bool(true)) { alpha / rank.sqrt() } else { alpha / rank }
    }
}

/// A pattern's text, if it is a name and no expression of another kind, and whether it stands for that name alone.
fn literal(pattern: &str) -> Option<(String, bool)> {
    let inner = pattern.strip_suffix('$').unwrap_or(pattern);
    let (inner, whole) = inner.strip_prefix('^').map_or((inner, false), |inner| (inner, true));
    let name = inner.replace("\\.", ".");
    (!name.is_empty() && !name.contains(|c: char| "\\^$*+?()[]{}|".contains(c))).then_some((name, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_peft() {
        let scale =
            |text: &str, module: &str| Settings::read("metadata", Some(text)).map(|settings| settings.scale(module, 4));
        assert_eq!(Settings::default().scale("unet.x", 4), 1.0);
        for (text, module, wanted) in [
            (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {}, "unet.use_dora": true}"#, "unet.x", 2.0),
            (r#"{"unet.lora_alpha": 8, "unet.use_rslora": true}"#, "unet.x", 4.0),
            (r#"{"lora_alpha": 8}"#, "base_model.model.x", 2.0),
            (r#"{"text_encoder.lora_alpha": 8}"#, "unet.x", 1.0),
            (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 2}}"#, "unet.a.to_q", 0.5),
            (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 2}}"#, "unet.a.into_q", 2.0),
            (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 2, "a.to_q": 4}}"#, "unet.a.to_q", 1.0),
            (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"^to_q": 2}}"#, "unet.a.to_q", 2.0),
            (r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"^a\\.to_q$": 2}}"#, "unet.a.to_q", 0.5),
            (r#"{"unet.lora_alpha": 8, "unet.rank_pattern": {"to_q": 4}}"#, "unet.a.to_q", 2.0),
        ] {
            assert_eq!(scale(text, module), Ok(wanted), "{text} {module}");
        }
        for (text, part) in [
            ("{", "a broken metadata"),
            (r#"{"unet.alpha_pattern": {"to_(q|k)": 2}}"#, "to_(q|k)"),
            (r#"{"unet.alpha_pattern": {"to_q": "much"}}"#, "no number for \"to_q\""),
            (r#"{"unet.alpha_pattern": 3}"#, "no object for unet.alpha_pattern"),
            (r#"{"unet.lora_alpha": "much"}"#, "no number for unet.lora_alpha"),
        ] {
            let error = scale(text, "unet.x").expect_err(text);
            assert!(error.contains(part) && !error.contains("EOF"), "{text}: {error}");
        }
    }
}
