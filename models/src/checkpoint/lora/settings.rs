//! What diffusers keeps of PEFT's configuration in a file's metadata: `{"unet.lora_alpha": 8, …}`.

use super::spelling::place;
use serde_json::{Map, Value};

#[derive(Debug, Default)]
pub(super) struct Settings(Map<String, Value>);

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
        Ok(Self(fields))
    }

    /// alpha / rank, or alpha / √rank where the file says so (Kalajdzievski 2023); 1 where it says nothing.
    pub(super) fn scale(&self, module: &str, rank: usize) -> f64 {
        let (part, name) = place(module);
        let field = |name: &str| self.0.get(&format!("{part}.{name}")).or_else(|| self.0.get(name));
        // The longest name is the most particular one; PEFT takes the first, in an order that JSON does not promise.
        let own = field("alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            let fits = patterns.iter().filter(|(key, _)| matches(key, name));
            fits.max_by_key(|(key, _)| key.len()).and_then(|(_, alpha)| alpha.as_f64())
        });
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

/// PEFT's rule: a pattern is the name or follows a dot in it.
fn matches(pattern: &str, name: &str) -> bool {
    literal(pattern).is_some_and(|(own, whole)| {
        name == own || !whole && name.strip_suffix(&*own).is_some_and(|before| before.ends_with('.'))
    })
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
