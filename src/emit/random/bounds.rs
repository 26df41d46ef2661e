//! What is known of the elements of a random value: how large they are, and how far targets may be apart.

/// Bounds on every element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Its greatest absolute value.
    pub(super) most: f64,
    /// It is a multiple of this power of two; 0 where it is rounded.
    pub(super) unit: f64,
    /// How far the results of two targets may be apart: 0 where all operators so far are exact.
    pub(super) error: f64,
}

/// A rounding of float32 arithmetic, relative: 2^-24 on each side, and one more for division and for fused or reordered
/// sums.
const ROUNDING: f64 = 2.5e-7;

/// The error of functions (exp, tanh, erf and the like) beside the rounding, relative to 1 + their greatest result.
const FUNCTION: f64 = 4e-6;

impl Bounds {
    /// Multiples of `unit` up to `most`.
    pub(super) fn exact(most: f64, unit: f64) -> Self {
        Bounds { most, unit, error: 0.0 }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.error == 0.0
    }

    /// The result of arithmetic on float32 that would be a multiple of `unit` if it were exact, from operands whose errors
    /// add up to `error` in it. It is exact where 24 bits hold it.
    pub(super) fn arithmetic(most: f64, unit: f64, error: f64, operations: f64) -> Self {
        if error == 0.0 && unit > 0.0 && most / unit <= f64::from(1 << 24) {
            return Bounds { most, unit, error };
        }
        Bounds { most, unit: 0.0, error: error + operations * most * ROUNDING }
    }

    /// The result of a function that goes up to `most` and enlarges an error at most `slope` times.
    pub(super) fn function(self, most: f64, slope: f64) -> Self {
        Bounds { most, unit: 0.0, error: self.error * slope + (1.0 + most) * FUNCTION }
    }

    /// One of the two, or between them.
    pub(super) fn either(self, other: Self) -> Self {
        let unit = if self.unit == 0.0 || other.unit == 0.0 { 0.0 } else { self.unit.min(other.unit) };
        Bounds { most: self.most.max(other.most), unit, error: self.error.max(other.error) }
    }

    pub(super) fn sum(self, other: Self) -> Self {
        let either = self.either(other);
        Bounds::arithmetic(self.most + other.most, either.unit, self.error + other.error, 1.0)
    }

    pub(super) fn product(self, other: Self) -> Self {
        let error = self.error * other.most + other.error * self.most + self.error * other.error;
        Bounds::arithmetic(self.most * other.most, self.unit * other.unit, error, 1.0)
    }

    /// A sum of `n` of them.
    pub(super) fn total(self, n: f64) -> Self {
        Bounds::arithmetic(self.most * n, self.unit, self.error * n, n)
    }
}
