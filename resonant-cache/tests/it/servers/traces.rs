//! What is said to servers, as traces show it.

use resonant_cache::backend::Key;

use super::{cache, config, server, started};
use crate::traces::{Seen, watched};

fn commands(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|seen| seen.name == "redis.command").collect()
}

#[test]
fn what_is_said_to_a_server_has_the_fields_that_tracing_systems_know() {
    let seen = watched(false, async |watch| {
        let mut config = config(vec![server().await.url()], false);
        config.key_prefix = format!("t{:08x}", rand::random::<u32>());
        let cache = cache(config.clone()).await;
        let users = cache.namespace::<String>("user");
        watch.take();
        started(users.set("secret-key", &"secret-value".to_owned()).await);
        started(users.get("secret-key").await);
        for found in users.get_many(&["secret-1", "secret-2", "secret-3"]).await {
            started(found);
        }
        started(users.delete("secret-key").await);
        let list = Key::new("user", "secret-list").encode(&config.key_prefix);
        started(server().await.command(["RPUSH", &list, "x"]).await);
        assert_eq!(started(users.get("secret-list").await), None);
    });
    let commands = commands(&seen);
    let port = commands[0].field("server.port").map(str::to_owned);
    for command in &commands {
        assert_eq!(command.parent, Some("cache.call"), "{command:?}");
        assert_eq!(command.field("otel.kind"), Some("client"));
        assert_eq!(command.field("db.system.name"), Some("redis"));
        assert_eq!(command.field("db.namespace"), Some("0"));
        assert_eq!(command.field("server.address"), Some("127.0.0.1"));
        assert_eq!(command.field("server.port").map(str::to_owned), port);
        assert_eq!(command.field("otel.name"), command.field("db.operation.name"));
    }
    let named =
        |name: &'static str| commands.iter().filter(move |it| it.field("otel.name") == Some(name));
    assert_eq!(named("GET").count(), 2, "{commands:#?}");
    assert!(named("GET").all(|get| get.field("db.operation.batch.size").is_none()));
    let batches: Vec<_> =
        named("PIPELINE GET").map(|it| it.field("db.operation.batch.size")).collect();
    assert_eq!(batches, [Some("3")]);
    // Scripts are named by their digest.
    let digests = named("EVALSHA").map(|it| it.field("db.stored_procedure.name").map(str::len));
    assert!(digests.collect::<Vec<_>>().contains(&Some(40)));
    let refused: Vec<_> =
        commands.iter().filter_map(|it| it.field("db.response.status_code")).collect();
    assert_eq!(refused.last(), Some(&"WRONGTYPE"), "{refused:?}");
    let shown = format!("{seen:?}");
    assert!(!shown.contains("secret"), "{shown}");
}
