//! Who may connect, and how: TLS, passwords that change, a broker that is not there yet.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_common::join::MemoryLeaseStore;
use resonant_queue::{ErrorKind, RabbitMq};
use resonant_testkit::FaultProxy;
use tokio::time::Instant;

use super::broker;
use super::support::{Seen, queue, until, work};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqps_with_an_authority_of_ones_own() {
    let server = resonant_testkit::RabbitMq::builder().tls().start().await.unwrap();
    let node = server.node(0);
    let url = node.tls_url().unwrap();
    let ca = std::fs::read_to_string(node.ca_file().unwrap()).unwrap();
    let leases = || Arc::new(MemoryLeaseStore::new());
    let rabbit = RabbitMq::connect([url.clone()]).leases(leases()).ca(ca).await.unwrap();
    let trusting = queue(rabbit, 1).await;
    let seen = Seen::default();
    let (worker, _) = work(&trusting, &seen).await;
    trusting.publish_many(0..20).await.unwrap();
    until("all are handled", async || seen.count() == 20).await;
    worker.drain().await.unwrap();

    // The authority is none of the system's: without it nothing is sent.
    let rabbit = RabbitMq::connect([url]).leases(leases()).await.unwrap();
    let refused = queue(rabbit, 1).await.publish(&1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_without_a_restart() {
    let vhost = broker().await.vhost().await.unwrap();
    let node = broker().await.node(0);
    let user = format!("app-{}", vhost.name());
    let eval = async |text: &str| {
        node.eval(&text.replace("USER", &user).replace("VHOST", vhost.name())).await.unwrap()
    };
    eval(
        "ok = rabbit_auth_backend_internal:add_user(<<\"USER\">>, <<\"one\">>, <<\"testkit\">>), \
         ok = rabbit_auth_backend_internal:set_permissions(<<\"USER\">>, <<\"VHOST\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"testkit\">>).",
    )
    .await;
    let (password, asked) = (Arc::new(Mutex::new("one".to_owned())), Arc::new(Mutex::new(0)));
    let provide = {
        let (user, password, asked) = (user.clone(), Arc::clone(&password), Arc::clone(&asked));
        move || {
            *asked.lock().unwrap() += 1;
            let answer = (user.clone(), password.lock().unwrap().clone());
            async move { Ok::<_, std::io::Error>(answer) }
        }
    };
    let rabbit = RabbitMq::connect([vhost.url()])
        .leases(Arc::new(MemoryLeaseStore::new()))
        .credentials(provide)
        .await
        .unwrap();
    assert!(!format!("{rabbit:?}").contains("one"));
    let queue = queue(rabbit, 1).await;
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    queue.publish(&1).await.unwrap();
    until("it is handled", async || seen.count() == 1).await;
    let before = *asked.lock().unwrap();

    eval("ok = rabbit_auth_backend_internal:change_password(<<\"USER\">>, <<\"two\">>, <<\"testkit\">>).").await;
    // Connections that are open stay.
    queue.publish(&11).await.unwrap();
    until("it is handled", async || seen.count() == 2).await;
    assert_eq!(*asked.lock().unwrap(), before);
    // New ones are refused until the source knows the new password.
    vhost.close_connections().await.unwrap();
    let refused = until_refused(&queue).await;
    assert!(!refused.to_string().contains("one"), "{refused}");
    "two".clone_into(&mut password.lock().unwrap());
    until("publishing goes on", async || queue.publish(&21).await.is_ok()).await;
    until("handling goes on", async || seen.all().contains(&21)).await;
    worker.drain().await.unwrap();
}

async fn until_refused(queue: &resonant_queue::PartitionedQueue<u64>) -> resonant_queue::Error {
    loop {
        if let Err(error) = queue.publish(&1001).await {
            return error;
        }
    }
}

/// Building and starting return at once; what was started begins when the broker is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_stops_no_start() {
    let server = broker().await;
    let vhost = server.vhost().await.unwrap();
    let proxy = FaultProxy::start(server.node(0).address()).await.unwrap();
    proxy.refuse().await.unwrap();
    let url = server.node(0).url_through(&proxy, vhost.name());
    let builder = RabbitMq::connect([url]).leases(Arc::new(MemoryLeaseStore::new()));
    let rabbit = builder.connect_timeout(Duration::from_secs(2)).await.unwrap();
    let began = Instant::now();
    let queue = queue(rabbit, 2).await;
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    println!("FIGURE started {:?} without a broker", began.elapsed());
    let refused = queue.publish(&1).await.unwrap_err();
    assert_eq!((refused.kind(), refused.is_transient()), (ErrorKind::Unavailable, true));
    assert!(refused.to_string().contains("refused"), "{refused}");
    proxy.heal().await.unwrap();
    let healed = Instant::now();
    until("publishing begins", async || queue.publish(&11).await.is_ok()).await;
    until("handling begins", async || seen.all().contains(&11)).await;
    println!("FIGURE works {:?} after the broker came", healed.elapsed());
    worker.drain().await.unwrap();
}
