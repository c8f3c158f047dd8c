//! Which of the jobs are this process's: those whose ids' hashes fall to its share, so that the same id is always the same worker's, wherever
//! its line stands.

use super::super::super::error::CliError;
use super::id::Id;
use std::fmt;
use std::str::FromStr;

/// One of several workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// From 0.
    pub(super) index: u64,
    pub(super) count: u64,
}

/// How many workers there are, where the cluster's own variables do not say.
const COUNT: &str = "HEADWATER_SHARDS";

impl Share {
    pub(super) const WHOLE: Self = Self { index: 0, count: 1 };

    fn new(index: u64, count: u64) -> Option<Self> {
        (index < count && count <= 100_000).then_some(Self { index, count })
    }

    pub(super) fn takes(self, id: &Id) -> bool {
        id.place() % self.count == self.index
    }

    /// Of lines without an id; the first has number 1.
    pub(super) fn takes_line(self, number: u64) -> bool {
        (number - 1) % self.count == self.index
    }

    /// What Slurm's job arrays and Kubernetes' Indexed Jobs say, by a function that reads variables; none where neither says anything.
    pub(super) fn from_cluster(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, CliError> {
        let number = |name: &str| {
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
            let number = text.parse::<u64>();
            number.map(Some).map_err(|_| CliError::Usage(format!("{name}: {text} is no whole number from 0 on")))
        };
        let said = number(COUNT)?;
        let one_of = |name: &str, index: u64, count: u64| {
            Self::new(index, count).map(Some).ok_or_else(|| {
                CliError::Usage(format!(
                    "{name} is {index}, and {COUNT} {count}: shards count from 0 to {COUNT} less one"
                ))
            })
        };
        if let Some(index) = number("JOB_COMPLETION_INDEX")? {
            let message = format!(
                "JOB_COMPLETION_INDEX is set and {COUNT} is not: give the Indexed Job's number of completions in it, or --shard I/N"
            );
            return one_of("JOB_COMPLETION_INDEX", index, said.ok_or(CliError::Usage(message))?);
        }
        let Some(id) = number("SLURM_ARRAY_TASK_ID")? else {
            return match said {
                None | Some(1) => Ok(None),
                Some(_) => Err(CliError::Usage(format!(
                    "{COUNT} is set, but no variable says which shard this is: give --shard I/N"
                ))),
            };
        };
        if let Some(count) = said {
            return one_of("SLURM_ARRAY_TASK_ID", id, count);
        }
        let (least, most) = (number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0), number("SLURM_ARRAY_TASK_MAX")?);
        let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        let count = number("SLURM_ARRAY_TASK_COUNT")?;
        // An array of any list of tasks (--array=3,17) has gaps that nothing tells of.
        let is_whole = most.zip(count).is_none_or(|(most, count)| most >= least && (most - least) / step + 1 == count);
        let own = count.filter(|_| is_whole && id >= least && (id - least).is_multiple_of(step));
        let own = own.and_then(|count| Self::new((id - least) / step, count));
        let message = format!(
            "the variables of Slurm's job array do not say which share is this task's: give {COUNT}, with an array from 0 on, or --shard I/N"
        );
        own.map(Some).ok_or(CliError::Usage(message))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:05}-of-{:05}", self.index, self.count)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, count)| Self::new(index.parse().ok()?, count.parse().ok()?));
        parts.ok_or_else(|| "give I/N, I from 0 to N less one, N at most 100000".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Slurm sets them for `--array=1-7:2`, and Kubernetes for completions.
    #[test]
    fn clusters_say_which_share() {
        let slurm = |id: &'static str| {
            vec![
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", "1"),
                ("SLURM_ARRAY_TASK_MAX", "7"),
                ("SLURM_ARRAY_TASK_STEP", "2"),
                ("SLURM_ARRAY_TASK_COUNT", "4"),
            ]
        };
        let gaps = vec![
            ("SLURM_ARRAY_TASK_ID", "17"),
            ("SLURM_ARRAY_TASK_MIN", "3"),
            ("SLURM_ARRAY_TASK_MAX", "17"),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
        ];
        let among = |mut list: Vec<(&'static str, &'static str)>, count| {
            list.push((COUNT, count));
            list
        };
        for (variables, share) in [
            (vec![], Some(None)),
            (vec![("SLURM_JOB_ID", "12")], Some(None)),
            (slurm("1"), Some(Some((0, 4)))),
            (slurm("7"), Some(Some((3, 4)))),
            (slurm("2"), None),
            (slurm("9"), None),
            (gaps.clone(), None),
            (among(gaps, "100"), Some(Some((17, 100)))),
            (vec![("SLURM_ARRAY_TASK_ID", "0"), ("SLURM_ARRAY_TASK_COUNT", "3")], Some(Some((0, 3)))),
            (vec![("SLURM_ARRAY_TASK_ID", "0")], None),
            (vec![("JOB_COMPLETION_INDEX", "3")], None),
            (among(vec![("JOB_COMPLETION_INDEX", "3")], "4"), Some(Some((3, 4)))),
            (among(vec![("JOB_COMPLETION_INDEX", "4")], "4"), None),
            (among(vec![("JOB_COMPLETION_INDEX", "x")], "4"), None),
            (among(vec![], "4"), None),
        ] {
            let read =
                |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
            let found = Share::from_cluster(read).ok().map(|share| share.map(|share| (share.index, share.count)));
            assert_eq!(found, share, "{variables:?}");
        }
    }

    #[test]
    fn shares_are_written_with_a_slash() {
        assert_eq!("2/3".parse(), Ok(Share { index: 2, count: 3 }));
        for text in ["3/3", "1", "-1/3", "1/0", "a/b", "1/2/3"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
