//! The memory of a run: registers of f32 or f64, with the operations that need no model.

use crate::program::{Limit, Program, Reg, Tolerance};

/// f32 or f64. Sums are formed in f64 and rounded once.
pub trait Element: Copy + Default {
    /// Widens.
    fn to_f64(self) -> f64;
    /// Rounds to nearest.
    fn from_f64(value: f64) -> Self;
}

impl Element for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Element for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// The registers of a driver, all of one length, with the ops that need no model.
#[derive(Debug, Clone)]
pub struct Registers<T> {
    slots: Vec<Vec<T>>,
    len: usize,
}

impl<T: Element> Registers<T> {
    /// As many registers as the program needs, x in its input.
    pub fn new(program: &Program, x: &[T]) -> Self {
        let mut slots = vec![Vec::new(); program.registers()];
        slots[program.input().0] = x.to_vec();
        Self { slots, len: x.len() }
    }

    /// The registers of the segment that follows, with what it takes over.
    pub fn for_next(&self, program: &Program, next: &Program) -> Self {
        let mut slots = vec![Vec::new(); next.registers()];
        for (from, to) in next.takes_over(program) {
            slots[to.0].clone_from(&self.slots[from.0]);
        }
        Self { slots, len: self.len }
    }

    /// A register's content; empty if never written.
    pub fn get(&self, reg: Reg) -> &[T] {
        &self.slots[reg.0]
    }

    /// A register to be overwritten.
    pub fn get_mut(&mut self, reg: Reg) -> &mut [T] {
        self.slots[reg.0].resize(self.len, T::default());
        &mut self.slots[reg.0]
    }

    /// A register to be overwritten beside one that is read; a program never asks for the same one twice.
    pub fn write_and_read(&mut self, dst: Reg, src: Reg) -> (&mut [T], &[T]) {
        let (dst, src) = self.write_both(dst, src);
        (dst, src)
    }

    /// The same where the second may be changed, too.
    pub fn write_both(&mut self, dst: Reg, src: Reg) -> (&mut [T], &mut [T]) {
        self.slots[dst.0].resize(self.len, T::default());
        let [dst, src] =
            self.slots.get_disjoint_mut([dst.0, src.0]).expect("no op of a program writes a register it reads");
        (dst, src)
    }

    /// A register to be overwritten beside two that are read, which may be the same one.
    pub fn write_and_read_two(&mut self, dst: Reg, a: Reg, b: Reg) -> (&mut [T], &[T], &[T]) {
        if a == b {
            let (dst, both) = self.write_and_read(dst, a);
            return (dst, both, both);
        }
        self.slots[dst.0].resize(self.len, T::default());
        let [dst, a, b] =
            self.slots.get_disjoint_mut([dst.0, a.0, b.0]).expect("no op of a program writes a register it reads");
        (dst, a, b)
    }

    /// dst = Σ coefficient · register.
    pub fn combine(&mut self, dst: Reg, terms: &[(f64, Reg)]) {
        let mut out = std::mem::take(&mut self.slots[dst.0]);
        out.clear();
        out.extend((0..self.len).map(|i| T::from_f64(self.sum_at(terms, i))));
        self.slots[dst.0] = out;
    }

    /// dst = src inside the limit; the whole register counts as one image.
    pub fn clip(&mut self, dst: Reg, src: Reg, limit: &Limit) {
        let (out, src) = self.write_and_read(dst, src);
        match *limit {
            Limit::Clamp { range } => {
                for (out, v) in out.iter_mut().zip(src) {
                    *out = T::from_f64(held(v.to_f64(), -range, range));
                }
            }
            Limit::Dynamic { ratio, max } => {
                let s = held(quantile_of_magnitudes(src, ratio), 1.0, max.max(1.0));
                for (out, v) in out.iter_mut().zip(src) {
                    *out = T::from_f64(held(v.to_f64(), -s, s) / s);
                }
            }
        }
    }

    /// The root mean square of Σ coefficient · register, each element divided by its tolerance.
    pub fn measure(&self, terms: &[(f64, Reg)], tolerance: Option<&Tolerance>) -> f64 {
        let mut squares = 0.0;
        for i in 0..self.len {
            let mut value = self.sum_at(terms, i);
            if let Some(Tolerance { absolute, relative, of }) = tolerance {
                let largest = of.iter().map(|r| self.slots[r.0][i].to_f64().abs()).fold(0.0, f64::max);
                value /= absolute.max(relative * largest);
            }
            squares += value * value;
        }
        (squares / self.len.max(1) as f64).sqrt()
    }

    fn sum_at(&self, terms: &[(f64, Reg)], i: usize) -> f64 {
        terms.iter().map(|&(coefficient, reg)| coefficient * self.slots[reg.0][i].to_f64()).sum()
    }
}

/// A value inside a range, and what is not a number as it is: a driver must see that a model has failed. `f64::clamp` panics where a bound is
/// not a number.
fn held(value: f64, low: f64, high: f64) -> f64 {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

/// torch.quantile's linear interpolation between order statistics.
fn quantile_of_magnitudes<T: Element>(values: &[T], ratio: f64) -> f64 {
    let mut magnitudes: Vec<f64> = values.iter().map(|v| v.to_f64().abs()).collect();
    magnitudes.sort_by(f64::total_cmp);
    let Some(last) = magnitudes.len().checked_sub(1) else { return 1.0 };
    let position = ratio.clamp(0.0, 1.0) * last as f64;
    let low = position.floor() as usize;
    let high = (low + 1).min(last);
    magnitudes[low] + (magnitudes[high] - magnitudes[low]) * (position - low as f64)
}
