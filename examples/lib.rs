//! This package is its examples: `cargo run --release --example flights`, and one page per primitive.
