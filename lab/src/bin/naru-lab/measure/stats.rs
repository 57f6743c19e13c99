//! The arithmetic on measured numbers.

/// Quantiles of Student's t at 97.5 %, for 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
/// The same for more.
const NORMAL: f64 = 1.960;

/// A ratio with the interval in which it lies with a probability of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) middle: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The value below which this share (0 to 1) of all lies, by the nearest rank; 0 of none.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let index = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or_default()
}

/// The value in the middle, or between the two that are there; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(half)) {
        (1, Some(middle)) => *middle,
        (_, Some(upper)) => sorted[half - 1].midpoint(*upper),
        (_, None) => 0.0,
    }
}

/// How far the middle half of all lies apart, as a share of the median.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let middle = median(values);
    let half = percentile(values, 0.75) - percentile(values, 0.25);
    if middle == 0.0 { 0.0 } else { half / middle }
}

/// The geometric mean of ratios, each of one round, with its interval by Student's t of
/// their logarithms. Of a single round it is everything from nothing on.
pub(crate) fn ratio(ratios: &[f64]) -> Interval {
    let count = ratios.len() as f64;
    let logs: Vec<f64> = ratios.iter().map(|it| it.ln()).collect();
    let mean = logs.iter().sum::<f64>() / count.max(1.0);
    let half = if ratios.len() > 1 {
        let squares: f64 = logs.iter().map(|it| (it - mean).powi(2)).sum();
        let error = (squares / (count - 1.0) / count).sqrt();
        T.get(ratios.len() - 2).copied().unwrap_or(NORMAL) * error
    } else {
        f64::INFINITY
    };
    Interval {
        middle: mean.exp(),
        low: (mean - half).exp(),
        high: (mean + half).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-3
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!(near(percentile(&values, 0.5), 100.0));
        assert!(near(percentile(&values, 0.99), 198.0));
        assert!(near(percentile(&values, 1.0), 200.0));
        assert!(near(percentile(&[], 0.5), 0.0));
        assert!(near(median(&[3.0, 1.0, 2.0, 10.0]), 2.5));
        assert!(near(median(&[3.0, 1.0, 2.0]), 2.0));
        assert!(near(median(&[]), 0.0));
    }

    #[test]
    fn equal_ratios_leave_no_doubt_and_one_says_nothing() {
        let sure = ratio(&[0.9; 10]);
        assert!(near(sure.low, 0.9) && near(sure.middle, 0.9) && near(sure.high, 0.9));
        let alone = ratio(&[0.9]);
        assert!(near(alone.middle, 0.9) && near(alone.low, 0.0) && alone.high.is_infinite());
    }

    #[test]
    fn the_interval_is_that_of_the_t_distribution() {
        // Logarithms -0.1, 0 and 0.1: their standard error is 0.1 / √3, and t is 4.303.
        let three = ratio(&[(-0.1_f64).exp(), 1.0, 0.1_f64.exp()]);
        let half = 4.303 * 0.1 / 3.0_f64.sqrt();
        assert!(near(three.middle, 1.0), "{three:?}");
        assert!(
            near(three.low, (-half).exp()) && near(three.high, half.exp()),
            "{three:?}"
        );
    }
}
