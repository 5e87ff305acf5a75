//! Pauses.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use resonant_scale::PauseRequest;

use super::asked::{Pausing, generation, is_json, parse, read};
use super::{JSON, find, problem_of, tagged};
use crate::http::builder::Shared;
use crate::http::problem::{Problem, respond};
use crate::http::routes::Answer;

pub(in crate::http) async fn pause(shared: Arc<Shared>, request: Request) -> Answer {
    set(&shared, request, PauseRequest::pause()).await
}

pub(in crate::http) async fn resume(shared: Arc<Shared>, request: Request) -> Answer {
    set(&shared, request, PauseRequest::resume()).await
}

/// Nothing is awaited once it is known what is asked for, so a client that goes away leaves nothing half done.
async fn set(shared: &Shared, request: Request, wanted: PauseRequest) -> Answer {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let who = shared.writer(headers)?;
    let generation = generation(headers)?;
    let body = read(shared, headers, body).await?;
    let pausing = match &body[..] {
        // In an incident it must do to ask without a word.
        [] => Pausing::default(),
        body => {
            is_json(headers)?;
            parse(body)?
        }
    };
    let mut wanted = pausing.request(wanted)?.actor(who);
    wanted.generation = generation;
    let scaler = find(&shared.scalers, pausing.target.as_deref())?;
    let status = scaler.set_paused(wanted).map_err(|error| problem_of(&error))?;
    let body = serde_json::to_string(&status).map_err(|_| Problem::lost())?;
    Ok(tagged(respond(StatusCode::OK, JSON, body), &status))
}
