//! The report of a drill: [`measure()`](measure::measure) reads the records of runs for silences and latencies; a table
//! for a terminal, a page for a browser and a few lines for a document show them beside the verdict. It judges nothing:
//! verdict and measures are shown as they are.

mod headline;
mod html;
mod markdown;
pub mod measure;
mod table;
mod terminal;
mod words;

pub use html::html;
pub use markdown::markdown;
pub use terminal::terminal;

#[cfg(test)]
mod tests;
