//! Real services join here.
