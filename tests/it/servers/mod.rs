//! Tests that start servers or need their tools. Where they are missing, these fail; `scripts/setup` installs them.

mod alerts;
mod browser;
mod drain;
