//! What the guide promises, and the shapes users write.

use futures::future::join_all;
use resonant_batch::{BatchConfig, BatchProcessor, ErrorKind, PerItem, Policy};
use tokio::time::Instant;

use crate::support::{Script, ms, settle};

#[tokio::test(start_paused = true)]
async fn each_caller_gets_the_result_of_its_own_item() {
    let script = Script::open();
    let batch = script.builder().build().unwrap();
    let results = join_all((0..250).map(|item| batch.submit(item))).await;
    for (item, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap(), item as u64 + 1000);
    }
    assert!(script.sizes().iter().all(|size| *size <= 100));
}

#[tokio::test(start_paused = true)]
async fn a_simultaneous_burst_is_one_batch_when_fixed_and_at_most_two_when_idle() {
    for (policy, most) in [(Policy::Fixed, 1), (Policy::Idle, 2)] {
        let script = Script::open();
        let batch = script.builder().policy(policy).build().unwrap();
        let tasks = (0..100).map(|item| {
            let batch = batch.clone();
            tokio::spawn(async move { batch.submit(item).await })
        });
        for result in join_all(tasks).await {
            result.unwrap().unwrap();
        }
        assert!(script.sizes().len() <= most, "{policy:?}: {:?}", script.sizes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_item_never_waits_when_idle_and_waits_its_time_when_fixed() {
    for (policy, wait) in [(Policy::Idle, ms(0)), (Policy::Fixed, ms(100))] {
        let batch = Script::open().builder().policy(policy).build().unwrap();
        tokio::time::sleep(ms(1234)).await;
        let start = Instant::now();
        batch.submit(1).await.unwrap();
        assert_eq!(start.elapsed(), wait, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_gathers_while_busy() {
    let script = Script::held();
    let batch = script.builder().max_in_flight(1).build().unwrap();
    let first = batch.try_submit(0).unwrap();
    settle().await;
    let rest: Vec<_> = (1..=50).map(|item| batch.try_submit(item).unwrap()).collect();
    settle().await;
    assert_eq!(script.sizes(), [1]);
    script.release(2);
    first.await.unwrap();
    for result in join_all(rest).await {
        result.unwrap();
    }
    assert_eq!(script.sizes(), [1, 50]);
}

#[tokio::test]
async fn batches_never_mix_keys_and_the_processor_gets_the_key() {
    let batch = BatchProcessor::keyed(async move |shard: u32, items: Vec<u32>| {
        assert!(items.iter().all(|item| item % 4 == shard));
        Ok::<_, std::io::Error>(items.iter().map(|item| (shard, *item)).collect::<Vec<_>>())
    })
    .key(|item: &u32| item % 4)
    .build()
    .unwrap();
    for (item, result) in batch.submit_many(0..1000).await.into_iter().enumerate() {
        assert_eq!(result.unwrap(), (item as u32 % 4, item as u32));
    }
    assert_eq!(batch.submit(7).await.unwrap(), (3, 7));
    assert_eq!(batch.with_key(1).submit(9).await.unwrap(), (1, 9));
    assert_eq!(batch.stats().keys, 0);
}

#[tokio::test]
async fn a_key_may_be_given_where_it_is_not_in_the_item() {
    let batch = BatchProcessor::keyed(async move |key: String, items: Vec<u8>| {
        Ok::<_, std::io::Error>(items.iter().map(|item| format!("{key}{item}")).collect::<Vec<_>>())
    })
    .build()
    .unwrap();
    assert_eq!(batch.with_key("a".into()).submit(1).await.unwrap(), "a1");
    assert_eq!(batch.with_key("b".into()).try_submit(2).unwrap().await.unwrap(), "b2");
    let many = batch.with_key("c".into()).submit_many([3, 4]).await;
    assert_eq!(many.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["c3", "c4"]);
    let error = batch.submit(5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("with_key"), "{error}");
}

#[tokio::test]
async fn a_processor_may_return_any_of_four_shapes() {
    let all = BatchProcessor::builder(async |items: Vec<u8>| Ok::<_, std::io::Error>(items));
    assert_eq!(all.build().unwrap().submit(1).await.unwrap(), 1);

    let nothing = BatchProcessor::builder(async |_: Vec<u8>| Ok::<(), std::io::Error>(()));
    nothing.build().unwrap().submit(1).await.unwrap();

    let odd = |item: u8| if item % 2 == 1 { Ok(item) } else { Err("even") };
    let each = BatchProcessor::builder(async move |items: Vec<u8>| {
        items.into_iter().map(odd).collect::<Vec<_>>()
    });
    let each = each.build().unwrap();
    assert_eq!(each.submit(1).await.unwrap(), 1);
    assert_eq!(each.submit(2).await.unwrap_err().kind(), ErrorKind::ItemFailed);

    let both = BatchProcessor::builder(async move |items: Vec<u8>| {
        if items.contains(&9) {
            return Err("nine");
        }
        Ok(PerItem(items.into_iter().map(odd).collect()))
    });
    let both = both.build().unwrap();
    assert_eq!(both.submit(2).await.unwrap_err().kind(), ErrorKind::ItemFailed);
    assert_eq!(both.submit(9).await.unwrap_err().kind(), ErrorKind::BatchFailed);
}

/// The bounds an axum handler has.
fn handler<F, Fut>(_: F)
where
    F: Fn(u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<u64, resonant_batch::Error>> + Send + 'static,
{
}

async fn plain(items: Vec<u64>) -> Result<Vec<u64>, std::io::Error> {
    Ok(items)
}

/// Every form of closure users write compiles with captured state, within a spawned task, and the handle within a handler.
#[tokio::test]
async fn closures_compile_where_users_put_them() {
    let db = Script::open();
    tokio::spawn(async move {
        let forms = [
            BatchProcessor::builder({
                let db = db.clone();
                async move |items: Vec<u64>| db.process(items).await
            }),
            BatchProcessor::builder({
                let db = db.clone();
                move |items: Vec<u64>| {
                    let db = db.clone();
                    async move { db.process(items).await }
                }
            }),
            BatchProcessor::builder(plain),
        ];
        for form in forms {
            let batch = form.build().unwrap();
            assert!(batch.submit(1).await.is_ok());
            handler({
                let batch = batch.clone();
                move |item| {
                    let batch = batch.clone();
                    async move { batch.submit(item).await }
                }
            });
            handler(move |item| {
                let batch = batch.clone();
                async move {
                    let accepted = batch.try_submit(item)?;
                    let others = batch.submit_many([1, 2, 3]).await;
                    batch.submit_timeout(others.len() as u64, ms(1)).await?;
                    batch.flush().await;
                    accepted.await
                }
            });
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn settings_come_from_files_and_bad_ones_are_refused() {
    let config: BatchConfig =
        serde_json::from_str(r#"{"max_batch_size": 7, "max_wait_time": "5ms"}"#).unwrap();
    let batch = Script::open().builder().config(config.clone()).build().unwrap();
    assert_eq!(batch.config(), &config);

    let error = Script::open().builder().max_batch_size(0).build().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, "build"));
    let config: BatchConfig = serde_json::from_str(r#"{"max_batch_weight": 7}"#).unwrap();
    let error = Script::open().builder().config(config).build().unwrap_err();
    assert!(error.message().contains("Builder::weight"), "{error}");
}

#[test]
fn without_a_runtime_it_says_so_and_takes_one() {
    let error = Script::open().builder().build().unwrap_err();
    assert!(error.message().contains("Builder::runtime"), "{error}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let batch = Script::open().builder().runtime(runtime.handle().clone()).build().unwrap();
    // Any executor may wait for the outcome.
    assert_eq!(futures::executor::block_on(batch.submit(1)).unwrap(), 1001);
}
