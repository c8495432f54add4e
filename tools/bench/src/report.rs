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
    /// What the three values of a figure are.
    pub(crate) columns: [&'static str; 3],
    pub(crate) figures: Vec<Figure>,
    /// What a reader must know, troubles of the clients first of all.
    pub(crate) notes: Vec<String>,
}

/// One figure: over all windows, or one value for each part.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) values: [f64; 3],
}

impl Section {
    pub(crate) fn new(command: String) -> Self {
        Self::with_columns(command, ["min", "median", "max"])
    }

    /// Of figures that are no windows of the same.
    pub(crate) fn with_columns(command: String, columns: [&'static str; 3]) -> Self {
        Self { command, columns, figures: Vec::new(), notes: Vec::new() }
    }

    /// Adds a figure as it is.
    pub(crate) fn values(&mut self, name: impl Into<String>, values: [f64; 3]) {
        self.figures.push(Figure { name: name.into(), values });
    }

    /// Adds a figure, one value per window; nothing without values.
    pub(crate) fn figure(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = f64>) {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        if let (Some(&min), Some(&max)) = (values.first(), values.last()) {
            self.values(name, [min, median(&values), max]);
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
        Ok(sluice_program::output::line(serde_json::to_string(self)?)?)
    }

    pub(crate) fn print_table(&self) -> anyhow::Result<()> {
        let mut out = format!("{}\n", self.machine);
        let names = self.sections.iter().flat_map(|section| &section.figures).map(|figure| figure.name.len());
        let width = names.max().unwrap_or(0);
        for section in &self.sections {
            writeln!(out, "\n$ {}", section.command)?;
            let [first, second, third] = section.columns;
            writeln!(out, "  {:width$} {first:>12} {second:>12} {third:>12}", "")?;
            for Figure { name, values } in &section.figures {
                let [first, second, third] = values.map(number);
                writeln!(out, "  {name:width$} {first:>12} {second:>12} {third:>12}")?;
            }
            for note in &section.notes {
                writeln!(out, "  {note}")?;
            }
        }
        Ok(sluice_program::output::text(&out)?)
    }
}

/// Three digits that matter, thousands apart: `19,300`, `4.52`, `0.031`.
pub(crate) fn number(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    if value.fract() == 0.0 && value.abs() < 1_000.0 {
        return format!("{value:.0}");
    }
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
        let middles: Vec<f64> = section.figures.iter().map(|figure| figure.values[1]).collect();
        assert_eq!(middles, [2.0, 1.5]);
    }
}
