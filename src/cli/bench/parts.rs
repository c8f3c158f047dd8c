//! The parts of a model and whole pictures, timed.

use super::process;
use super::row::{Row, Suite};
use crate::cli::error::CliError;
use pipelines::{Bench, Job, Pipeline, Repeats, Request};
use std::collections::BTreeMap;
use std::time::Instant;

/// The part that everybody asks for.
pub(super) const STEP: &str = "step";

/// How operations are added up, and who did them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grouping {
    /// By as many components of their path, not by their names.
    pub(super) path: Option<usize>,
    /// Of the native executor.
    pub(super) threads: Option<usize>,
}

/// What was measured of a model.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) rows: Vec<Row>,
    /// Of the process, after the first of its suites.
    pub(super) peak_memory: Option<u64>,
}

/// The system counts processors' time in hundredths of a second: shares of less than this are too coarse.
const LEAST_SECONDS: f64 = 0.2;

impl Grouping {
    /// Share of the threads' time in which they worked. A thread that waits for work by asking for it again and again counts as working.
    #[allow(clippy::cast_precision_loss, reason = "a number of threads")]
    fn share(&self, processor: Option<f64>, seconds: &[f64]) -> Option<f64> {
        Some((processor? / (seconds.iter().sum::<f64>() * self.threads? as f64)).min(1.0))
    }

    /// The same of hundredths of a second.
    fn busy(&self, processor: Option<f64>, seconds: &[f64]) -> Option<f64> {
        self.share(processor, seconds).filter(|_| seconds.iter().sum::<f64>() >= LEAST_SECONDS)
    }

    fn group(&self, node: &graph::NodeTime) -> String {
        let Some(depth) = self.path else { return node.op.to_owned() };
        let path: Vec<&str> = node.path.split('.').take(depth).collect();
        if node.path.is_empty() { "(outermost)".into() } else { path.join(".") }
    }

    /// A part, then its groups, the slowest first.
    fn rows(&self, part: &str, bench: &Bench) -> Vec<Row> {
        let mut groups: BTreeMap<String, Row> = BTreeMap::new();
        let mut processor: BTreeMap<String, Option<f64>> = BTreeMap::new();
        let row = |group| Row {
            suite: Suite::Meso,
            part: part.to_owned(),
            group,
            count: 0,
            seconds: Vec::new(),
            flops: 0,
            bytes: 0,
            busy: None,
        };
        for (i, nodes) in bench.profiles.iter().enumerate() {
            for node in nodes {
                let name = self.group(node);
                let group = groups.entry(name.clone()).or_insert_with(|| row(Some(name.clone())));
                group.seconds.resize(i + 1, 0.0);
                group.seconds[i] += node.seconds;
                let spent = processor.entry(name).or_insert(Some(0.0));
                *spent = spent.zip(node.processor).map(|(sum, own)| sum + own);
                // Every profile is of the same operations.
                if i == 0 {
                    group.count += 1;
                    group.flops += node.flops;
                    group.bytes += node.bytes;
                }
            }
        }
        for (name, group) in &mut groups {
            group.busy = self.share(processor.get(name).copied().flatten(), &group.seconds);
        }
        let mut groups: Vec<Row> = groups.into_values().collect();
        groups.sort_by(|a, b| b.spread().median.total_cmp(&a.spread().median));
        let whole = Row {
            count: groups.iter().map(|group| group.count).sum(),
            seconds: bench.seconds.clone(),
            flops: bench.flops,
            bytes: groups.iter().map(|group| group.bytes).sum(),
            busy: self.busy(bench.processor, &bench.seconds),
            ..row(None)
        };
        std::iter::once(whole).chain(groups).collect()
    }
}

impl Measured {
    /// In the order in which a run needs them.
    pub(super) fn parts(
        &mut self,
        pipe: &Pipeline,
        job: &Job,
        samples: usize,
        count: usize,
        grouping: Grouping,
    ) -> Result<(), CliError> {
        let repeats = Repeats { count, processor: &process::processor_seconds };
        let measured = [
            ("prompt encode", pipe.bench_prompt(job, repeats)?),
            ("picture encode", pipe.bench_encode(job, repeats)?),
            (STEP, Some(pipe.bench(job, samples, repeats)?)),
            ("latent decode", pipe.bench_decode(job, repeats)?),
        ];
        for (part, bench) in measured {
            self.rows.extend(bench.iter().flat_map(|bench| grouping.rows(part, bench)));
        }
        self.peak_memory = self.peak_memory.or_else(process::peak_memory);
        Ok(())
    }

    /// Whole pictures: the first, for which plans are made, and then as many more.
    pub(super) fn pictures(
        &mut self,
        pipe: &Pipeline,
        request: &Request,
        samples: usize,
        count: usize,
        grouping: Grouping,
    ) -> Result<(), CliError> {
        let row = |part: &str, group: Option<&str>, seconds: Vec<f64>, busy| Row {
            suite: Suite::Macro,
            part: part.to_owned(),
            group: group.map(str::to_owned),
            count: samples,
            seconds,
            flops: 0,
            bytes: 0,
            busy,
        };
        // Seconds of each: in all, encoding, sampling, decoding.
        let mut seconds = [const { Vec::new() }; 4];
        let mut before = None;
        for i in 0..=count {
            // Each has words of its own, because prompts that were read once are remembered.
            let prompt = if pipe.takes_prompt() { format!("picture {i}") } else { String::new() };
            let started = Instant::now();
            let job = pipe.job(&Request { prompt, ..request.clone() })?;
            let made = pipe.start_all(&vec![job; samples])?.finish()?;
            let whole = started.elapsed().as_secs_f64();
            if i == 0 {
                self.rows.push(row("first picture, plans made", None, vec![whole], None));
                before = process::processor_seconds();
                continue;
            }
            let timings = made.first().map(|made| made.timings).unwrap_or_default();
            let decode: f64 = made.iter().map(|made| made.timings.decode.as_secs_f64()).sum();
            let own = [whole, timings.encode.as_secs_f64(), timings.sample.as_secs_f64(), decode];
            seconds.iter_mut().zip(own).for_each(|(all, own)| all.push(own));
        }
        let processor = before.and_then(|before| Some(process::processor_seconds()? - before));
        let [whole, encode, sample, decode] = seconds;
        let busy = grouping.busy(processor, &whole);
        self.rows.push(row("whole picture", None, whole, busy));
        for (group, seconds) in [("encode", encode), ("sample", sample), ("decode", decode)] {
            self.rows.push(row("whole picture", Some(group), seconds, None));
        }
        self.peak_memory = process::peak_memory();
        Ok(())
    }
}
