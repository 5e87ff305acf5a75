//! What users type, where they type it: inside axum handlers and spawned tasks, with captured state.

mod handlers;
mod readme;
mod service;
mod spawned;
