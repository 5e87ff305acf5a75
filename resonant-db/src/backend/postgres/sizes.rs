//! How big the futures of a read are: they are allocated, filled and moved with each one.

use tokio_postgres::types::ToSql;

use super::connection::PostgresConnection;
use super::run::{Ask, fetch};
use super::session::Session;
use super::statements::Known;

/// The size of the future that a call answers.
pub(super) fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn what_is_rare_takes_no_place_in_the_future_of_a_read() {
    type Connection = &'static mut PostgresConnection;
    let prepared =
        size(|(session, known): (&'static Session, &'static Known)| fetch(session, known, &[]));
    let driver = size(|session: &'static Session| {
        let none: [&(dyn ToSql + Sync); 0] = [];
        async move { session.client.query("", &none).await }
    });
    let run = size(|connection: Connection| connection.run("", Ask::Rows(&[])));
    let leave = size(|connection: Connection| connection.leave("", 0, Ok(())));
    let read = size(|read: crate::database::Read<'static>| read.query("", &[]));
    assert!(prepared < driver + 400, "{prepared}, of which the driver's is {driver}");
    assert!(run < driver + 800, "{run}, of which the driver's is {driver}");
    assert!(leave < 1024, "{leave}");
    assert!(read < 2048, "{read}");
}
