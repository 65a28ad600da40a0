//! The figures of all rounds, and the table of their medians.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::peers::Peer;
use crate::rows::ROWS;

/// A figure that a row measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    name: &'static str,
    unit: &'static str,
    better: Better,
}

/// How peers are ranked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Better {
    Lower,
    Higher,
    /// Compared after subtracting the value without a forwarder.
    LowerThanDirect,
}

impl Figure {
    pub const fn new(name: &'static str, unit: &'static str, better: Better) -> Figure {
        Figure { name, unit, better }
    }
}

/// All values of all rounds.
#[derive(Debug, Default)]
pub struct Results {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    row: &'static str,
    figure: Figure,
    peers: Vec<(Peer, Vec<f64>)>,
}

impl Results {
    pub fn record(&mut self, row: &'static str, figure: Figure, peer: Peer, value: f64) {
        let at = self
            .lines
            .iter()
            .position(|line| line.row == row && line.figure == figure);
        let at = at.unwrap_or_else(|| {
            self.lines.push(Line {
                row,
                figure,
                peers: Vec::new(),
            });
            self.lines.len() - 1
        });
        let peers = &mut self.lines[at].peers;
        match peers.iter_mut().find(|(of, _)| *of == peer) {
            Some((_, values)) => values.push(value),
            None => peers.push((peer, vec![value])),
        }
    }

    /// One line for each figure: medians, the ratio of `ic` to the best other proxy, its middle half, and the ratio to the
    /// baseline.
    pub fn table(&self, peers: &[Peer]) -> String {
        let columns: Vec<Peer> = peers
            .iter()
            .copied()
            .filter(|&peer| peer != Peer::NginxBuffered)
            .collect();
        let mut out = format!("{:<13} {:<12} {:<5}", "row", "figure", "unit");
        for peer in &columns {
            let _ = write!(out, " {:>9}", peer.name());
        }
        let has_baseline = peers.contains(&Peer::Baseline);
        let _ = write!(out, " {:>8} {:>12}", "ic/best", "ic's rounds");
        out.push_str(if has_baseline {
            "  ic/baseline\n"
        } else {
            "\n"
        });
        for line in self.sorted() {
            let _ = write!(
                out,
                "{:<13} {:<12} {:<5}",
                line.row, line.figure.name, line.figure.unit
            );
            for &peer in &columns {
                let value = line.better_of(peer).map_or("–".to_owned(), rounded);
                let _ = write!(out, " {value:>9}");
            }
            let ratio = line
                .ratio()
                .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let spread = line.values(Peer::Ic).map_or(String::new(), |values| {
                let (low, high) = spread(values);
                format!("{}–{}", rounded(low), rounded(high))
            });
            let _ = write!(out, " {ratio:>8} {spread:>12}");
            if let Some((ic, baseline)) = line.median(Peer::Ic).zip(line.median(Peer::Baseline)) {
                let _ = write!(out, " {:>12.3}", ic / baseline);
            }
            out.push('\n');
        }
        out
    }

    pub fn json(&self) -> Value {
        let lines = self.sorted().into_iter().map(|line| {
            let peers = line.peers.iter().map(|(peer, values)| {
                let (low, high) = spread(values);
                let found =
                    json!({"median": median(values), "low": low, "high": high, "rounds": values});
                (peer.name().to_owned(), found)
            });
            json!({
                "row": line.row,
                "figure": line.figure.name,
                "unit": line.figure.unit,
                "peers": peers.collect::<serde_json::Map<_, _>>(),
                "ic_to_best": line.ratio(),
            })
        });
        lines.collect()
    }

    /// In the order of the rows.
    fn sorted(&self) -> Vec<&Line> {
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        lines.sort_by_key(|line| ROWS.iter().position(|row| row.name == line.row));
        lines
    }
}

impl Line {
    fn values(&self, peer: Peer) -> Option<&[f64]> {
        let (_, values) = self.peers.iter().find(|(of, _)| *of == peer)?;
        Some(values)
    }

    fn median(&self, peer: Peer) -> Option<f64> {
        self.values(peer).map(median)
    }

    /// The median; for nginx that of the better of its two configurations.
    fn better_of(&self, peer: Peer) -> Option<f64> {
        let value = self.median(peer);
        let other = match peer {
            Peer::Nginx => self.median(Peer::NginxBuffered),
            _ => None,
        };
        let better = |a: f64, b: f64| match self.figure.better {
            Better::Higher => a.max(b),
            Better::Lower | Better::LowerThanDirect => a.min(b),
        };
        match (value, other) {
            (Some(a), Some(b)) => Some(better(a, b)),
            (a, b) => a.or(b),
        }
    }

    /// `ic` divided by the best other proxy (inverted where higher is better): below 1, `ic` is the best.
    fn ratio(&self) -> Option<f64> {
        let rivals = self
            .peers
            .iter()
            .filter(|(peer, _)| peer.is_comparable())
            .map(|(_, values)| median(values));
        let ic = self.median(Peer::Ic)?;
        match self.figure.better {
            Better::Lower => Some(ic / rivals.reduce(f64::min)?),
            Better::Higher => Some(rivals.reduce(f64::max)? / ic),
            Better::LowerThanDirect => {
                let direct = self.median(Peer::Direct)?;
                Some((ic - direct) / (rivals.reduce(f64::min)? - direct))
            }
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() / 2, sorted.len() % 2) {
        (middle, 1) => sorted[middle],
        (middle, _) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The quartiles.
fn spread(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    (sorted[quarter], sorted[sorted.len() - 1 - quarter])
}

/// Three significant digits: the rounds differ by more.
fn rounded(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
