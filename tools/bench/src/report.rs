//! Figures, each from several windows, as a table for people and as JSON. It computes nothing but ranks.

use std::fmt::Write;

use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) sections: Vec<Section>,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    /// The command that repeats it.
    pub(crate) command: String,
    pub(crate) figures: Vec<Figure>,
    /// What a reader must know, troubles of the clients first of all.
    pub(crate) notes: Vec<String>,
}

/// One figure over all windows.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Section {
    pub(crate) fn new(command: String) -> Self {
        Self { command, figures: Vec::new(), notes: Vec::new() }
    }

    /// Adds a figure, one value per window; nothing without values.
    pub(crate) fn figure(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = f64>) {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        if let (Some(&min), Some(&max)) = (values.first(), values.last()) {
            self.figures.push(Figure { name: name.into(), min, median: median(&values), max });
        }
    }
}

/// Of sorted values, at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

impl Report {
    pub(crate) fn print_json(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }

    pub(crate) fn print_table(&self) -> anyhow::Result<()> {
        let mut out = format!("{}\n", self.machine);
        let names = self.sections.iter().flat_map(|section| &section.figures).map(|figure| figure.name.len());
        let width = names.max().unwrap_or(0);
        for section in &self.sections {
            writeln!(out, "\n$ {}", section.command)?;
            writeln!(out, "  {:width$} {:>12} {:>12} {:>12}", "", "min", "median", "max")?;
            for Figure { name, min, median, max } in &section.figures {
                let (min, median, max) = (number(*min), number(*median), number(*max));
                writeln!(out, "  {name:width$} {min:>12} {median:>12} {max:>12}")?;
            }
            for note in &section.notes {
                writeln!(out, "  {note}")?;
            }
        }
        print!("{out}");
        Ok(())
    }
}

/// Three digits that matter, thousands apart: `19,300`, `4.52`, `0.031`.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 1_000.0 {
        let decimals = if value.abs() < 1.0 { 3 } else { 2 - usize::from(value.abs() >= 10.0) };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let shown = [0.0314, 4.523, 45.23, 999.94, 1_234.5, 5_123_456.0].map(number);
        assert_eq!(shown, ["0.031", "4.52", "45.2", "999.9", "1,234", "5,123,456"]);
    }

    #[test]
    fn a_figure_knows_its_middle() {
        let mut section = Section::new(String::new());
        section.figure("x", [3.0, 1.0, 2.0]);
        section.figure("y", [1.0, 2.0]);
        section.figure("nothing", []);
        let middles: Vec<f64> = section.figures.iter().map(|figure| figure.median).collect();
        assert_eq!(middles, [2.0, 1.5]);
    }
}
