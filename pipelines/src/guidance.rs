//! Where guidance acts.

use crate::error::PipelineError;
use std::fmt;
use std::str::FromStr;

/// The noise levels at which classifier-free guidance acts; at all others the network predicts once, with the prompt alone (Kynkäänniemi et
/// al. 2024, *Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models*). As there it is σ itself
/// that is bounded, so that an interval means the same whatever the steps, and it is open below: above `low`, and up to `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuidanceInterval {
    low: f64,
    high: f64,
}

impl GuidanceInterval {
    /// Above `low` and up to `high`, which may be infinite. From 0 on, no noise at all counts as well, so that 0 and infinity leave nothing out.
    ///
    /// # Errors
    /// Where they are no interval: `low` is not below `high`, or below 0, or not a number.
    pub fn new(low: f64, high: f64) -> Result<Self, PipelineError> {
        if low >= 0.0 && low < high {
            return Ok(Self { low, high });
        }
        let message = format!(
            "{low},{high} is no guidance interval: give two noise levels from 0 on, the lower first, as in 0.28,5.42 or 1,inf"
        );
        Err(PipelineError::Request(message))
    }

    /// Whether guidance acts at this noise level.
    #[must_use]
    pub fn contains(&self, sigma: f64) -> bool {
        (self.low < sigma || self.low == 0.0) && sigma <= self.high
    }

    /// Both ends as bits, for whoever hashes.
    #[must_use]
    pub fn to_bits(self) -> [u64; 2] {
        [self.low.to_bits(), self.high.to_bits()]
    }
}

impl fmt::Display for GuidanceInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.low, self.high)
    }
}

impl FromStr for GuidanceInterval {
    type Err = PipelineError;

    fn from_str(text: &str) -> Result<Self, PipelineError> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let ends = text.split_once(',').and_then(|(low, high)| number(low).zip(number(high)));
        let Some((low, high)) = ends else {
            let message = format!("{text} is no guidance interval: give LO,HI, two noise levels, as in 0.28,5.42");
            return Err(PipelineError::Request(message));
        };
        Self::new(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_open_below_and_says_itself() {
        let own: GuidanceInterval = "0.28, 5.42".parse().expect("an interval");
        assert_eq!([0.0, 0.28, 0.29, 5.42, 5.43].map(|sigma| own.contains(sigma)), [false, false, true, true, false]);
        assert_eq!(own.to_string().parse::<GuidanceInterval>().expect("what it says"), own);
        let all: GuidanceInterval = "0,inf".parse().expect("everything");
        assert_eq!([0.0, 1e-9, 1e9].map(|sigma| all.contains(sigma)), [true; 3]);
        assert_eq!(all.to_string(), "0,inf");
        for bad in ["3,1", "1,1", "-1,2", "nan,2", "1,nan", "inf,inf", "1", "1,2,3", "", "a,b"] {
            let error = bad.parse::<GuidanceInterval>().expect_err(bad);
            assert!(error.is_usage() && error.to_string().contains("is no guidance interval"), "{bad}: {error}");
        }
    }
}
