//! What was decided, and how it came about.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use resonant_scale::{Autoscaler, Decided, LastChange};
use serde_json::{Value, json};

use super::{JSON, named};
use crate::http::builder::Shared;
use crate::http::problem::respond;
use crate::http::routes::Answer;

pub(in crate::http) async fn history(shared: Arc<Shared>, request: Request) -> Answer {
    each(&shared, &request, |scaler| {
        let (mut changes, mut decisions): (Vec<LastChange>, Vec<Decided>) =
            (scaler.history(), scaler.decisions());
        changes.reverse();
        decisions.reverse();
        json!({ "target": scaler.name(), "changes": changes, "decisions": decisions })
    })
}

pub(in crate::http) async fn explain(shared: Arc<Shared>, request: Request) -> Answer {
    each(
        &shared,
        &request,
        |scaler| json!({ "target": scaler.name(), "explanation": scaler.explain() }),
    )
}

fn each(shared: &Shared, request: &Request, tell: impl Fn(&Autoscaler) -> Value) -> Answer {
    let targets: Vec<_> = named(shared, request)?.into_iter().map(tell).collect();
    Ok(respond(StatusCode::OK, JSON, json!({ "targets": targets }).to_string()))
}
