//! Durations, counted by ranges of length.
//!
//! Pure: the caller has the clock. Recording is a search among a few bounds and two additions, since it is done for every request.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

/// Recorded durations: one count for each of [`BOUNDS`], and one for what is longer.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Cell<u64>; BOUNDS.len() + 1],
    sum_micros: Cell<u64>,
}

impl Histogram {
    /// Records a duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS.partition_point(|&bound| bound < duration.as_secs_f64());
        self.counts[class].set(self.counts[class].get() + 1);
        self.sum_micros
            .set(self.sum_micros.get().saturating_add(micros));
    }

    /// Writes it in the format of Prometheus, in which each bucket includes the smaller ones.
    pub fn write(&self, name: &str, help: &str, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut so_far = 0;
        let bounds = BOUNDS.iter().map(f64::to_string);
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (count, bound) in self.counts.iter().zip(bounds) {
            so_far += count.get();
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {so_far}");
        }
        let sum = self.sum_micros.get();
        let _ = writeln!(
            out,
            "{name}_sum {}.{:06}\n{name}_count {so_far}",
            sum / 1_000_000,
            sum % 1_000_000
        );
    }
}

/// In seconds: from what a mock takes to what a thinking model takes.
const BOUNDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
    600.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The class that a time falls into, by its upper bound.
    #[track_caller]
    fn check(time: Duration, bound: &str) {
        let histogram = Histogram::default();
        histogram.record(time);
        let mut text = String::new();
        histogram.write("t", "Times.", &mut text);
        let first = text.lines().find(|line| line.ends_with("} 1"));
        assert_eq!(
            first,
            Some(format!("t_bucket{{le=\"{bound}\"}} 1").as_str())
        );
    }

    #[test]
    fn a_time_falls_into_the_first_class_that_is_not_shorter() {
        check(Duration::ZERO, "0.0005");
        check(Duration::from_micros(500), "0.0005");
        check(Duration::from_micros(501), "0.001");
        check(Duration::from_secs(1), "1");
        check(Duration::from_millis(1001), "2.5");
        check(Duration::from_secs(600), "600");
        check(Duration::from_secs(601), "+Inf");
        check(Duration::MAX, "+Inf");
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn each_class_holds_the_smaller_ones_and_the_last_all() {
        let histogram = Histogram::default();
        for millis in [1, 2, 2, 40, 700_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let mut text = String::new();
        histogram.write("t", "Times.", &mut text);
        assert!(
            text.starts_with("# HELP t Times.\n# TYPE t histogram\n"),
            "{text}"
        );
        let value = |name: &str| {
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_default().to_owned()
        };
        assert_eq!(value("t_bucket{le=\"0.001\"}"), "1");
        assert_eq!(value("t_bucket{le=\"0.0025\"}"), "3");
        assert_eq!(value("t_bucket{le=\"0.05\"}"), "4");
        assert_eq!(value("t_bucket{le=\"600\"}"), "4");
        assert_eq!(value("t_bucket{le=\"+Inf\"}"), "5");
        assert_eq!(value("t_count"), "5");
        assert_eq!(value("t_sum"), "700.045000");
    }

    #[test]
    fn what_no_clock_could_count_does_not_wrap() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        histogram.record(Duration::MAX);
        let mut text = String::new();
        histogram.write("t", "", &mut text);
        assert!(text.contains("t_sum 18446744073709.551615\n"), "{text}");
    }
}
