//! The axes of a plot.

/// An axis from its first tick to its last.
pub struct Axis {
    pub ticks: Vec<f64>,
    pub is_logarithmic: bool,
}

impl Axis {
    /// A logarithmic axis with ticks at 1, 2 and 5 of each power of ten, around values above zero.
    pub fn logarithmic(least: f64, most: f64) -> Axis {
        let powers = least.log10().floor() as i32..=most.log10().ceil() as i32;
        let all: Vec<f64> = powers
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| scaled(digit, power)))
            .collect();
        let first = all.iter().rposition(|tick| *tick <= least).unwrap_or(0);
        let last = all.iter().position(|tick| *tick >= most).unwrap_or(all.len() - 1);
        // If all values equal one tick, the axis would have no length.
        let last = last.max(first + 1);
        Axis {
            ticks: all[first..=last].to_vec(),
            is_logarithmic: true,
        }
    }

    /// An axis from zero with at most ten even steps.
    pub fn from_zero(most: f64) -> Axis {
        let most = if most > 0.0 { most } else { 1.0 };
        let power = most.log10().floor() as i32 - 1;
        let steps = [
            (1.0, power),
            (2.0, power),
            (5.0, power),
            (1.0, power + 1),
            (2.0, power + 1),
        ];
        let fits = |step: &f64| most / step <= 10.0;
        let step = steps
            .map(|(digit, power)| scaled(digit, power))
            .into_iter()
            .find(fits)
            .unwrap_or(most);
        let count = (most / step).ceil() as u32;
        Axis {
            ticks: (0..=count).map(|tick| f64::from(tick) * step).collect(),
            is_logarithmic: false,
        }
    }

    /// The position of a value on the axis, from 0 to 1.
    pub fn position(&self, value: f64) -> f64 {
        let place = |value: f64| if self.is_logarithmic { value.log10() } else { value };
        let (first, last) = (place(self.ticks[0]), place(self.ticks[self.ticks.len() - 1]));
        (place(value) - first) / (last - first)
    }
}

/// Divides by a power of ten instead of multiplying with its inverse, which is not exact.
fn scaled(digit: f64, power: i32) -> f64 {
    if power < 0 {
        digit / 10_f64.powi(-power)
    } else {
        digit * 10_f64.powi(power)
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn ticks_enclose_what_is_drawn() {
        assert_eq!(Axis::logarithmic(0.03, 0.4).ticks, [0.02, 0.05, 0.1, 0.2, 0.5]);
        assert_eq!(Axis::logarithmic(100.0, 100.0).ticks, [100.0, 200.0]);
        assert_eq!(
            Axis::from_zero(31.0).ticks,
            [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0]
        );
        assert_eq!(Axis::from_zero(0.0).ticks.last(), Some(&1.0));
    }

    #[test]
    fn a_position_is_a_part_of_the_axis() {
        assert_eq!(Axis::from_zero(10.0).position(5.0), 0.5);
        let tenfold = Axis::logarithmic(1.0, 100.0).position(10.0);
        assert!((tenfold - 0.5).abs() < 1e-9, "{tenfold}");
    }
}
