//! One statement, many rows of parameters: sent without waiting for the answers, in one transaction.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use futures::poll;
use tokio_postgres::{Client, Statement};

use crate::backend::ParamRows;

use super::error::Trouble;
use super::param::Encoded;
use super::session::Session;

/// How many statements are under way at once.
const WINDOW: usize = 256;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'a>>;

/// Answers that are still to come, in the order of their requests.
struct Pipeline<'a> {
    session: &'a Session,
    under_way: VecDeque<Answer<'a>>,
    affected: u64,
    /// The statement only reads: it counts rows, but none that it changed.
    reads: bool,
    failure: Option<Trouble>,
}

impl<'a> Pipeline<'a> {
    fn new(session: &'a Session, reads: bool) -> Self {
        Self { session, under_way: VecDeque::new(), affected: 0, reads, failure: None }
    }

    /// Sends a request. It leaves with the first poll, so polling here keeps the order.
    async fn send(
        &mut self,
        request: impl Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'a,
    ) {
        let mut request: Answer<'a> = Box::pin(request);
        match poll!(&mut request) {
            std::task::Poll::Ready(answer) => self.note(answer.map_err(Trouble::from)),
            std::task::Poll::Pending => self.under_way.push_back(request),
        }
    }

    async fn receive(&mut self) {
        if let Some(answer) = self.under_way.pop_front() {
            let answer = self.session.within(answer).await;
            if matches!(answer, Err(Trouble::Silent(_))) {
                self.under_way.clear();
            }
            self.note(answer);
        }
    }

    /// Only the first failure says something; the rest follow from it.
    fn note(&mut self, answer: Result<u64, Trouble>) {
        match answer {
            Ok(_) if self.reads => {}
            Ok(affected) => self.affected += affected,
            Err(trouble) => {
                self.failure.get_or_insert(trouble);
            }
        }
    }

    async fn finish(&mut self) {
        while !self.under_way.is_empty() {
            self.receive().await;
        }
    }
}

/// Runs the rows; with `enclose`, which begins it, in a transaction of their own. Answers the affected rows, of which a statement that
/// `reads` has none.
pub(super) async fn run(
    session: &Session,
    statement: &Statement,
    rows: &ParamRows,
    enclose: Option<String>,
    reads: bool,
) -> Result<u64, Trouble> {
    let client = &session.client;
    let mut pipeline = Pipeline::new(session, reads);
    if let Some(opening) = &enclose {
        pipeline.send(control(client, opening)).await;
    }
    for row in 0..rows.len() {
        if pipeline.failure.is_some() {
            break;
        }
        let params: Vec<_> =
            (0..rows.width()).map(|place| Encoded(rows.param(row, place))).collect();
        pipeline.send(client.execute_raw(statement, params)).await;
        if pipeline.under_way.len() >= WINDOW {
            pipeline.receive().await;
        }
    }
    if enclose.is_some() && pipeline.failure.is_none() {
        // If one of those still under way fails, the server answers this with a rollback.
        pipeline.send(control(client, "COMMIT")).await;
    }
    pipeline.finish().await;
    match pipeline.failure.take() {
        Some(trouble) => Err(trouble),
        None => Ok(pipeline.affected),
    }
}

async fn control(client: &Client, sql: &str) -> Result<u64, tokio_postgres::Error> {
    client.batch_execute(sql).await.map(|()| 0)
}
