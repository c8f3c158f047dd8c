//! Every sampler, one file each, and the one list of them.

mod cfg_pp;
mod consistency;
mod ddim;
mod ddpm;
mod deis;
mod dpm_2;
mod dpm_adaptive;
mod dpm_fast;
mod dpm_solver;
mod dpmpp_2m;
mod dpmpp_2m_sde;
mod dpmpp_2s;
mod dpmpp_2s_ancestral;
mod dpmpp_sde;
mod er_sde;
mod euler;
mod euler_ancestral;
mod gradient_estimation;
mod heun;
mod inverse;
mod ipndm;
mod ipndm_v;
mod langevin;
mod lcm;
mod list;
mod lms;
mod pndm;
mod repaint;
mod res_multistep;
mod reverse_sde;
mod rk45;
mod sa_solver;
mod settings;
mod steps;
mod tcd;
mod unipc;

use crate::builder::Builder;
use crate::error::{Error, nearest_names, plain};
use crate::program::Program;
use crate::schedule::Schedule;
pub use list::SAMPLERS;
pub use settings::{Settings, SolverType, Variance};

/// An entry of the list.
#[derive(Debug)]
pub struct Sampler {
    /// The name on the command line: k-diffusion's, or diffusers' where k-diffusion has none.
    pub name: &'static str,
    /// Its names in other tools.
    pub aliases: Aliases,
    /// One line for a list.
    pub summary: &'static str,
    /// Order of convergence: of the path for a deterministic sampler, of the distribution for a stochastic one.
    pub order: u32,
    /// Whether it draws noise beyond the first.
    pub stochastic: bool,
    /// Model evaluations per step (fewer in some first or last steps).
    pub evaluations: u32,
    /// The default share of fresh noise, for samplers where it can be set: 0 is deterministic, 1 the full amount.
    pub eta: Option<f64>,
    /// The diffusers class by whose rules a configuration becomes its schedule, if there is one.
    pub class: Option<&'static str>,
    /// Where it was published.
    pub paper: &'static str,
    /// Whether it leads from an image to noise: x starts as an image at the schedule's last sigma and ends at the first.
    pub inverts: bool,
    /// Whether it can hold x to what is known about the image, at every noise level ([`Settings::constrained`]).
    pub constrains: bool,
    emit: Emit,
}

/// What other tools call a sampler. Case, spaces, `_` and `-` do not matter, `+` is `p`.
#[derive(Debug, Clone, Copy)]
pub struct Aliases {
    /// Classes of diffusers whose own sampler it is.
    pub diffusers: &'static [&'static str],
    /// ComfyUI's `sampler_name`.
    pub comfyui: &'static [&'static str],
    /// AUTOMATIC1111's and Forge's sampling method.
    pub a1111: &'static [&'static str],
    /// stable-diffusion.cpp's `--sampling-method`.
    pub sdcpp: &'static [&'static str],
    /// Others in use.
    pub other: &'static [&'static str],
}

impl Aliases {
    /// (tool, its names), in the order of the lists that show them.
    pub fn by_tool(&self) -> [(&'static str, &'static [&'static str]); 4] {
        [
            ("diffusers", self.diffusers),
            ("comfyui", self.comfyui),
            ("a1111", self.a1111),
            ("stable-diffusion.cpp", self.sdcpp),
        ]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.by_tool().into_iter().map(|(_, names)| names).chain([self.other]).flatten().copied()
    }
}

/// How a sampler is written.
#[derive(Debug)]
enum Emit {
    /// It knows every coefficient before the first step.
    Fixed(fn(&mut Builder, &Schedule, &Settings)),
    /// It continues from numbers that are measured on the way.
    Adaptive(fn(&Schedule, &Settings) -> Program),
}

impl Sampler {
    /// Whether it chooses its own steps, from the schedule's ends and its tolerances.
    pub fn is_adaptive(&self) -> bool {
        matches!(self.emit, Emit::Adaptive(_))
    }

    /// The defaults with this sampler's own share of noise, EDM's churn for `edm_heun`, and the tolerances of `rk45`.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings { eta: self.eta.unwrap_or(0.0), ..Settings::default() };
        if self.name == "edm_heun" {
            // Karras et al. 2022, table 5: ImageNet-64.
            (settings.s_churn, settings.s_tmin, settings.s_tmax, settings.s_noise) = (40.0, 0.05, 50.0, 1.003);
        }
        if self.name == "rk45" {
            // Each step may use a tenth of it, which gives the 1e-5 of Song et al. 2021b, appendix D.4.
            (settings.absolute_tolerance, settings.relative_tolerance) = (1e-4, 1e-4);
        }
        settings
    }

    /// The sampler applied to a schedule.
    pub fn program(&self, schedule: &Schedule, settings: &Settings) -> Program {
        match self.emit {
            Emit::Fixed(emit) => {
                let mut builder = Builder::new(schedule, settings.limit);
                emit(&mut builder, schedule, settings);
                builder.finish(self.name)
            }
            Emit::Adaptive(first) => first(schedule, settings),
        }
    }
}

impl PartialEq for Sampler {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The sampler of a name or alias.
///
/// # Errors
/// [`Error::UnknownSampler`], with the nearest names.
pub fn sampler(name: &str) -> Result<&'static Sampler, Error> {
    let find = |is_meant: &dyn Fn(&str) -> bool| {
        SAMPLERS.iter().copied().find(|s| is_meant(s.name) || s.aliases.iter().any(is_meant))
    };
    let wanted = plain(name);
    // ComfyUI's uni_pc is not diffusers' UniPC, so an exact match of the name comes first.
    find(&|spelling| spelling == name)
        .or_else(|| find(&|spelling| plain(spelling) == wanted))
        .ok_or_else(|| Error::UnknownSampler { name: name.to_owned(), nearest: nearest_names(name, spellings()) })
}

fn spellings() -> impl Iterator<Item = (&'static str, &'static str)> {
    SAMPLERS.iter().flat_map(|s| s.aliases.iter().chain([s.name]).map(|spelling| (spelling, s.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn names_and_aliases_are_unique() {
        let mut seen: HashMap<String, &str> = HashMap::new();
        for (spelling, name) in spellings() {
            if let Some(other) = seen.insert(spelling.to_owned(), name) {
                assert_eq!(other, name, "{spelling} means two samplers");
            }
            let meant = sampler(&plain(spelling)).unwrap().name;
            assert!(meant == name || spelling == "uni_pc", "{spelling} means {name} and {meant}");
        }
    }

    #[test]
    fn other_tools_spelling() {
        for (typed, name) in [
            ("DPM++ 2M", "dpmpp_2m"),
            ("dpm++2m", "dpmpp_2m"),
            ("Euler a", "euler_ancestral"),
            ("uni_pc", "unipc_bh1"),
            ("UniPC", "unipc"),
        ] {
            assert_eq!(sampler(typed).unwrap().name, name);
        }
        let error = sampler("eular").unwrap_err().to_string();
        assert!(error.starts_with("there is no sampler \"eular\"; did you mean euler"), "{error}");
        assert!(sampler("").is_err());
    }
}
