//! What users type, where they type it: inside axum handlers and spawned tasks, with captured state.

mod handlers;
mod service;
mod spawned;
