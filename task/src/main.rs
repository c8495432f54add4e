//! The task process.
fn main() {}
