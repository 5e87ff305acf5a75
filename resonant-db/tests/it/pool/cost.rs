//! What lending an idle connection costs.

use futures::FutureExt;

use super::{sizes, warm};

#[tokio::test(start_paused = true)]
async fn lending_and_taking_back_allocates_nothing_and_asks_nobody() {
    let (server, pool) = warm(sizes(4, 4)).await;
    drop(pool.get().await.expect("idle"));
    let before = server.counts();
    let cost = allocation_counter::measure(|| {
        for _ in 0..1000 {
            let connection = pool.get().now_or_never().expect("at once").expect("idle");
            drop(connection);
        }
    });
    assert_eq!((cost.count_total, cost.bytes_total), (0, 0), "{cost:?}");
    assert_eq!(server.counts(), before, "the server was asked");
    let control = allocation_counter::measure(|| drop(Box::new([0_u8; 64])));
    assert_eq!(control.count_total, 1, "the counter does not count");
}
