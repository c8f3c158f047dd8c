//! `steps.csv` and `steps.json`.

use super::files::write;
use super::{ReportError, Summary};
use crate::compare::record::{Nearest, Record, StepRecord};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// The columns of `steps.csv`. Numbers of a whole cell stand in each of its rows.
const COLUMNS: &str = "sampler,steps,step,nfe,sigma,seconds,error_x,error_final,error_denoised,change,nfe_total,seconds_total,psnr,ssim,path,\
                       spread,schedule,guidance,guidance_interval,step_cache,eta,seed,model,prompt,cell,note";

fn write_csv(out: &mut dyn Write, records: &[Record]) -> std::io::Result<()> {
    writeln!(out, "{COLUMNS}")?;
    for record in records {
        let step = |step: &StepRecord| row(record, Some(step));
        let rows: Vec<String> =
            if record.steps.is_empty() { vec![row(record, None)] } else { record.steps.iter().map(step).collect() };
        rows.iter().try_for_each(|row| writeln!(out, "{row}"))?;
    }
    Ok(())
}

fn row(record: &Record, step: Option<&StepRecord>) -> String {
    let own = &record.settings;
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let of = |value: &dyn Fn(&StepRecord) -> Option<f64>| number(step.and_then(value));
    let count = |value: &dyn Fn(&StepRecord) -> usize| step.map_or(String::new(), |step| value(step).to_string());
    let refused = record.refused.is_some();
    let total = |text: String| if refused { String::new() } else { text };
    let fields = [
        own.sampler.clone(),
        own.steps.to_string(),
        count(&|step| step.step),
        count(&|step| step.nfe),
        of(&|step| Some(step.sigma)),
        of(&|step| Some(step.seconds)),
        of(&|step| step.error_x),
        number(record.error_final),
        of(&|step| step.error_denoised),
        of(&|step| step.change),
        total(record.nfe.to_string()),
        total(record.seconds.to_string()),
        number(record.psnr),
        number(record.ssim),
        record.path.name().to_owned(),
        number(record.spread),
        own.schedule.clone(),
        own.guidance.to_string(),
        own.guidance_interval.clone().unwrap_or_default(),
        own.step_cache.clone().unwrap_or_default(),
        number(own.eta),
        own.seed.to_string(),
        own.model.clone(),
        own.prompt.clone(),
        record.id.clone(),
        record.refused.clone().unwrap_or_default(),
    ];
    fields.map(|field| quoted(&field)).join(",")
}

/// A field as RFC 4180 has it.
pub(super) fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

pub(super) fn nearest_json(nearest: &Nearest) -> Value {
    json!({ "nfe": nearest.nfe, "label": nearest.label, "used": nearest.used, "error": nearest.error })
}

pub(super) fn summary_json(summary: &Summary) -> Value {
    json!({
        "title": summary.title,
        "settings": summary.subtitle,
        "within": summary.within,
        "cheapest_within": summary.cheapest.as_ref().map(nearest_json),
        "nearest_at_each_budget": summary.nearest.iter().map(nearest_json).collect::<Vec<_>>(),
        "evaluations_shared": summary.taken_over,
        "evaluations_computed": summary.computed,
        "cells_missing": summary.missing,
    })
}

pub(super) fn write_files(folder: &Path, records: &[Record], summary: &Summary) -> Result<(), ReportError> {
    write(&folder.join("steps.csv"), |out| write_csv(out, records))?;
    let json = json!({ "summary": summary_json(summary), "cells": records });
    write(&folder.join("steps.json"), |out| Ok(serde_json::to_writer_pretty(out, &json)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_commas_and_quotes_stay_one_field() {
        for (field, written) in [("a cat", "a cat"), ("a, b", "\"a, b\""), ("the \"x\"", "\"the \"\"x\"\"\""), ("", "")]
        {
            assert_eq!(quoted(field), written);
        }
    }
}
