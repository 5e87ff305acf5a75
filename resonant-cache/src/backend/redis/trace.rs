//! Spans of what is said to a server, as OpenTelemetry's conventions for Redis name their fields. Neither keys nor values are
//! among them.

use tracing::{Span, field};

use super::driver::{Answer, Fault};
use super::node::Node;
use super::resp::Command;

/// The span of commands that go to a server together.
pub(super) fn exchange(node: &Node, database: u8, commands: &[&Command]) -> Span {
    let span = tracing::debug_span!(
        target: "resonant::cache", "redis.command",
        otel.name = field::Empty,
        otel.kind = "client",
        otel.status_code = field::Empty,
        db.system.name = "redis",
        db.namespace = field::Empty,
        db.operation.name = field::Empty,
        db.operation.batch.size = (commands.len() > 1).then_some(commands.len()),
        db.stored_procedure.name = field::Empty,
        db.response.status_code = field::Empty,
        server.address = node.address().host,
        server.port = node.address().port,
        resonant.cache.replica = node.is_replica(),
        error.type = field::Empty,
    );
    if !span.is_disabled() {
        let operation = operation(commands);
        span.record("otel.name", operation.as_str());
        span.record("db.operation.name", operation.as_str());
        span.record("db.namespace", field::display(database));
        if let [Command { name: "EVALSHA", args, .. }] = commands {
            let digest = args.first().and_then(|digest| std::str::from_utf8(digest).ok());
            span.record("db.stored_procedure.name", digest);
        }
    }
    span
}

/// One command's name, or that of all of them behind the word for more than one.
fn operation(commands: &[&Command]) -> String {
    let mut names = commands.iter().map(|command| command.name);
    let first = names.next().unwrap_or_default();
    match commands.len() {
        0 | 1 => first.to_owned(),
        _ if names.all(|name| name == first) => format!("PIPELINE {first}"),
        _ => "PIPELINE".to_owned(),
    }
}

/// The first answer that is none.
pub(super) fn answered(span: &Span, answers: &[Answer]) {
    let Some(fault) = answers.iter().find_map(|answer| answer.as_ref().err()) else { return };
    let kind = match fault {
        Fault::Refused(_) => {
            span.record("db.response.status_code", fault.code());
            fault.code()
        }
        Fault::Broken(_) => "broken",
        Fault::TimedOut(_) => "timeout",
        Fault::Down(_) => "unreachable",
    };
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}
