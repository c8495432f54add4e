//! What people see of a drill: a table in a terminal, one page for a browser, a few lines for a document. It adds
//! nothing of its own: the verdict and the measures are what they are.

mod headline;
mod html;
mod markdown;
mod table;
mod terminal;
mod words;

pub use html::html;
pub use markdown::markdown;
pub use terminal::terminal;

#[cfg(test)]
mod tests;
