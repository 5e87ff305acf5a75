//! What is proven, what is refused, and that nothing can overwhelm the router.

use resonant_db::sharding::{BUCKETS, BucketMap, RouteKind, ShardRouter};
use resonant_db::{ErrorKind, KeyType, Param, ShardedDatabase, params};

fn router() -> ShardRouter {
    let mut builder = ShardedDatabase::builder()
        .table("agents", "org_id", KeyType::Text)
        .table("tasks", "org_id", KeyType::Text)
        .reference("countries");
    for shard in 0..4 {
        builder = builder.shard(format!("shard_{shard}"), "sqlite::memory:");
    }
    builder.router().expect("a router")
}

/// Statements that name one key go to its shard, wherever the proof is found.
#[test]
fn single_key_statements_go_to_one_shard() {
    let router = router();
    let home = router.shard_for("org_1").expect("a shard").to_owned();
    for sql in [
        "SELECT * FROM agents WHERE org_id = $1",
        "SELECT name FROM agents WHERE org_id = $1 AND score > 3 ORDER BY name LIMIT 5",
        "SELECT count(*) FROM agents WHERE $1 = org_id",
        "SELECT a.name, t.goal FROM agents a JOIN tasks t ON t.org_id = a.org_id WHERE a.org_id = $1",
        "SELECT a.name FROM agents a LEFT JOIN tasks t ON t.org_id = a.org_id AND t.agent_id = a.id WHERE a.org_id = $1",
        "SELECT a.name, c.name FROM agents a JOIN countries c ON c.code = a.name WHERE a.org_id = $1",
        "INSERT INTO agents (org_id, id) VALUES ($1, 1)",
        "UPDATE agents SET score = score + 1 WHERE org_id = $1 AND id = 2",
        "DELETE FROM tasks WHERE org_id = $1",
    ] {
        let route = router.explain_route(sql, params!["org_1"]);
        let route = route.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(
            (route.kind, route.shards.as_slice()),
            (RouteKind::Single, &[home.clone()][..]),
            "{sql}"
        );
    }
}

/// Each of these went wrong in some router: a key that stands where it proves nothing.
#[test]
fn keys_that_prove_nothing_are_refused() {
    let router = router();
    for sql in [
        "SELECT * FROM agents",
        "SELECT * FROM agents WHERE org_id = $1 OR score = 1",
        "SELECT * FROM agents WHERE NOT org_id = $1",
        "SELECT * FROM agents WHERE org_id <> $1",
        "SELECT * FROM agents WHERE org_id > $1",
        "SELECT * FROM agents WHERE (org_id = $1) IS NOT TRUE",
        "SELECT a.name FROM agents a LEFT JOIN tasks t ON t.org_id = $1 AND t.org_id = a.org_id",
        "SELECT a.name FROM agents a, tasks t WHERE a.org_id = $1",
        "SELECT a.name FROM agents a JOIN tasks t ON t.agent_id = a.id WHERE a.org_id = $1",
        "SELECT count(*) FILTER (WHERE org_id = $1) FROM agents",
        "SELECT CASE WHEN org_id = $1 THEN 1 ELSE 2 END FROM agents",
        "SELECT org_id = $1 FROM agents",
        "SELECT name FROM agents WHERE org_id = $1 UNION SELECT name FROM agents",
        "SELECT name FROM agents WHERE EXISTS (SELECT 1 FROM tasks WHERE org_id = $1)",
        "SELECT name FROM agents WHERE id IN (SELECT agent_id FROM tasks WHERE org_id = $1)",
        "SELECT (SELECT name FROM agents WHERE org_id = $1), name FROM agents",
        "WITH mine AS (SELECT * FROM agents) SELECT * FROM mine JOIN tasks t ON t.org_id = $1",
        "SELECT * FROM agents WHERE org_id = lower($1) || random()",
        "SELECT * FROM strangers WHERE org_id = $1",
        "SELECT my_function(name) FROM agents WHERE org_id = $1",
        "UPDATE agents SET org_id = $1 WHERE org_id = $1",
        "UPDATE agents SET score = 1",
        "DELETE FROM agents",
        "INSERT INTO agents (id) VALUES (1)",
        "INSERT INTO agents SELECT * FROM tasks WHERE org_id = $1",
        "SELECT 1; SELECT 2",
        "DROP TABLE agents",
        "nonsense",
        "",
    ] {
        match router.explain_route(sql, params!["org_1"]) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "{sql}: {error}"),
            Ok(route) => panic!("{sql} was routed: {route}"),
        }
    }
}

#[test]
fn keys_of_another_type_are_refused() {
    let router = router();
    for key in [Param::Int(7), Param::Null, Param::Float(1.0), Param::Bytes(b"7")] {
        let error = router
            .explain_route("SELECT * FROM agents WHERE org_id = $1", &[key])
            .expect_err("no text");
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    }
    let missing =
        router.explain_route("SELECT * FROM agents WHERE org_id = $1", &[]).expect_err("missing");
    assert_eq!(missing.kind(), ErrorKind::Refused);
}

#[test]
fn bombs_are_refused_and_do_not_exhaust_the_stack() {
    let router = router();
    let deep = 200_000;
    for sql in [
        format!("SELECT {}1{}", "(".repeat(deep), ")".repeat(deep)),
        format!("SELECT * FROM agents WHERE {} org_id = $1", "NOT ".repeat(deep)),
        format!("SELECT {} 1", "- ".repeat(deep)),
        format!("SELECT {}", vec!["1"; deep].join(" + ")),
        format!("{} SELECT 1", "SELECT * FROM (".repeat(deep)),
        format!("SELECT {}1", "CASE WHEN 1 THEN ".repeat(deep)),
        format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(deep)),
        "'".repeat(deep),
        "/*".repeat(deep),
        "$".repeat(deep),
    ] {
        let outcome = router.explain_route(&sql, params!["org_1"]);
        assert!(outcome.is_err(), "{}…", &sql[..40]);
    }
    assert!(
        router.cached_bytes() < 64 << 20,
        "refusals are not hoarded: {}",
        router.cached_bytes()
    );
}

#[test]
fn no_text_makes_the_router_panic() {
    let router = router();
    let words = [
        "SELECT",
        "*",
        "FROM",
        "agents",
        "WHERE",
        "org_id",
        "=",
        "$1",
        "AND",
        "OR",
        "NOT",
        "(",
        ")",
        ",",
        "IN",
        "'x'",
        "JOIN",
        "ON",
        "UNION",
        "tasks",
        "INSERT INTO",
        "VALUES",
        "UPDATE",
        "SET",
        "DELETE",
        "WITH",
        "AS",
        "CASE",
        "WHEN",
        "END",
        "$0",
        "$99999999999",
        "\"",
        "'",
        "--",
        "/*",
        ";",
        "é",
        "\0",
        "ANY",
        "EXISTS",
        "LIMIT",
        "1",
        "::text",
        "ORDER BY",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        let mut sql = String::new();
        for _ in 0..(state % 24) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            sql.push_str(words[(state >> 33) as usize % words.len()]);
            sql.push(' ');
        }
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let _ = router.explain_route(&sql, params!["org_1"]);
    }
}

#[test]
fn growing_by_a_shard_moves_a_fifth_of_the_buckets() {
    let four = BucketMap::dealt(4).expect("a map");
    let plan = four.plan(&[0, 1, 2, 3, 4]).expect("a plan");
    assert!(
        !plan.moves.is_empty() && plan.moves.len() <= BUCKETS as usize / 5 + 1,
        "{} buckets move",
        plan.moves.len()
    );
    assert!(plan.moves.iter().all(|step| step.to == 4), "only the new shard gains");
    let five = four.apply(&plan).expect("applied");
    let back = five.plan(&[0, 1, 2, 3]).expect("a plan");
    assert_eq!(
        back.moves.len(),
        plan.moves.len(),
        "shrinking moves only what the removed shard had"
    );
}
