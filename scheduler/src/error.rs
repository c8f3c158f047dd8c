//! Everything that can be wrong with a request, in one sentence each.

use std::fmt;

/// Why no program could be made.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// No sampler has this name or alias.
    UnknownSampler {
        /// The name as it was asked for.
        name: String,
        /// The closest names, best first.
        nearest: Vec<&'static str>,
    },
    /// No noise schedule has this name.
    UnknownSchedule {
        /// The name as it was asked for.
        name: String,
        /// The closest names, best first.
        nearest: Vec<&'static str>,
    },
    /// `_class_name` is missing or names a class whose meaning is not known here.
    UnknownClass {
        /// The class as written.
        class: String,
    },
    /// The class is read, but its own sampler is not among [`crate::SAMPLERS`].
    NoSampler {
        /// The diffusers class.
        class: String,
    },
    /// A field that no diffusers scheduler has.
    UnknownField {
        /// The class in the configuration.
        class: String,
        /// The field.
        field: String,
    },
    /// A field holds a value of another type than in diffusers.
    FieldType {
        /// The field.
        field: String,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A value that changes the result and is not supported.
    Unsupported {
        /// The class whose rules apply.
        class: String,
        /// The field.
        field: String,
        /// The value as written.
        value: String,
        /// What would be accepted, or why the value is not.
        reason: String,
    },
    /// The steps, timesteps or sigmas asked for do not make a schedule.
    Schedule(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownSampler { name, nearest } => {
                write!(f, "there is no sampler \"{name}\"{}", did_you_mean(nearest))
            }
            Self::UnknownSchedule { name, nearest } => {
                write!(f, "there is no noise schedule \"{name}\"{}", did_you_mean(nearest))
            }
            Self::UnknownClass { class } if class.is_empty() => {
                write!(f, "the scheduler configuration has no _class_name")
            }
            Self::UnknownClass { class } => {
                write!(f, "the scheduler class {class} is not supported")
            }
            Self::NoSampler { class } => {
                write!(f, "the sampler of {class} is not available: choose another")
            }
            Self::UnknownField { class, field } => {
                write!(f, "the scheduler configuration ({class}) has a field {field} of unknown meaning")
            }
            Self::FieldType { field, expected, found } => {
                write!(f, "the scheduler configuration's {field} should be {expected}, not {found}")
            }
            Self::Unsupported { class, field, value, reason } => {
                write!(f, "{class} with {field} = {value} is not supported: {reason}")
            }
            Self::Schedule(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

fn did_you_mean(nearest: &[&str]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(", ")) }
}

/// The names nearest to what was typed, by edit distance over letters and digits only, best first.
pub(crate) fn nearest_names(
    typed: &str,
    names: impl Iterator<Item = (&'static str, &'static str)>,
) -> Vec<&'static str> {
    let typed = plain(typed);
    let mut scored: Vec<(usize, &'static str)> = Vec::new();
    for (spelling, canonical) in names {
        let spelling = plain(spelling);
        let mut distance = edit_distance(&typed, &spelling);
        // A fragment such as "2m" or "ancestral" is a better hint than its edit distance says.
        if typed.len() >= 2 && spelling.contains(&typed) {
            distance = distance.min(1);
        }
        if distance <= 1 + typed.len().max(spelling.len()) / 3 {
            scored.push((distance, canonical));
        }
    }
    scored.sort();
    let mut best = Vec::new();
    for (_, name) in scored {
        if !best.contains(&name) {
            best.push(name);
        }
    }
    best.truncate(3);
    best
}

/// Lower-case letters and digits only, `+` spelled `p`, so that `DPM++ 2M`, `dpm++2m` and `dpmpp_2m` are one name.
pub(crate) fn plain(name: &str) -> String {
    name.chars()
        .filter_map(|c| match c {
            '+' => Some('p'),
            c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distances() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("heun", "heun", 0), ("eular", "euler", 1)] {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn spellings_are_one_name() {
        for spelling in ["DPM++ 2M", "dpm++2m", "dpmpp_2m", "DPMpp-2m"] {
            assert_eq!(plain(spelling), "dpmpp2m");
        }
    }
}
