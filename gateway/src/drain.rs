//! How clients leave when the gateway stops. The arithmetic is in [`pace`]; the shards carry it out.

pub mod pace;
