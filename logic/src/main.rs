//! The logic process.
fn main() {}
