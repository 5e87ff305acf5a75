//! What ordinary programs send is routed to one shard, at no cost to speak of and within bounds.

use resonant_db::sharding::{Route, RouteKind, ShardRouter};
use resonant_db::{KeyType, Param, ShardedDatabase, params};

/// The statements of pgbench by branch and of TPC-C by warehouse.
const STATEMENTS: &[&str] = &[
    // pgbench
    "UPDATE pgbench_accounts SET abalance = abalance + $2 WHERE aid = $3 AND bid = $1",
    "SELECT abalance FROM pgbench_accounts WHERE aid = $2 AND bid = $1",
    "UPDATE pgbench_tellers SET tbalance = tbalance + $2 WHERE tid = $3 AND bid = $1",
    "UPDATE pgbench_branches SET bbalance = bbalance + $2 WHERE bid = $1",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($2, $1, $3, $4, CURRENT_TIMESTAMP)",
    // New order
    "SELECT c_discount, c_last, c_credit, w_tax FROM customer, warehouse WHERE w_id = $1 AND c_w_id = w_id AND c_d_id = $2 AND c_id = $3",
    "SELECT d_next_o_id, d_tax FROM district WHERE d_w_id = $1 AND d_id = $2 FOR UPDATE",
    "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = $1 AND d_id = $2",
    "INSERT INTO orders (o_id, o_d_id, o_w_id, o_c_id, o_entry_d, o_ol_cnt, o_all_local) VALUES ($2, $3, $1, $4, $5, $6, $7)",
    "INSERT INTO new_order (no_o_id, no_d_id, no_w_id) VALUES ($2, $3, $1)",
    "SELECT i_price, i_name, i_data FROM item WHERE i_id = $2",
    "SELECT s_quantity, s_data, s_dist_01, s_dist_02 FROM stock WHERE s_i_id = $2 AND s_w_id = $1 FOR UPDATE",
    "UPDATE stock SET s_quantity = $2, s_ytd = s_ytd + $3, s_order_cnt = s_order_cnt + 1 WHERE s_i_id = $4 AND s_w_id = $1",
    "INSERT INTO order_line (ol_o_id, ol_d_id, ol_w_id, ol_number, ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_dist_info) VALUES ($2, $3, $1, $4, $5, $1, $6, $7, $8), ($2, $3, $1, $9, $5, $1, $6, $7, $8)",
    // Payment
    "UPDATE warehouse SET w_ytd = w_ytd + $2 WHERE w_id = $1",
    "SELECT w_street_1, w_city, w_state, w_zip, w_name FROM warehouse WHERE w_id = $1",
    "UPDATE district SET d_ytd = d_ytd + $2 WHERE d_w_id = $1 AND d_id = $3",
    "SELECT count(c_id) FROM customer WHERE c_last = $2 AND c_d_id = $3 AND c_w_id = $1",
    "SELECT c_id, c_first, c_balance FROM customer WHERE c_last = $2 AND c_d_id = $3 AND c_w_id = $1 ORDER BY c_first",
    "SELECT c_data FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3 FOR UPDATE",
    "UPDATE customer SET c_balance = c_balance - $2, c_data = substr($3 || c_data, 1, 500) WHERE c_w_id = $1 AND c_d_id = $4 AND c_id = $5 RETURNING c_credit",
    "INSERT INTO history (h_c_d_id, h_c_w_id, h_c_id, h_d_id, h_w_id, h_date, h_amount, h_data) VALUES ($2, $1, $3, $4, $1, $5, $6, $7)",
    // Order status
    "SELECT o_id, o_carrier_id, o_entry_d FROM orders WHERE o_w_id = $1 AND o_d_id = $2 AND o_c_id = $3 ORDER BY o_id DESC LIMIT 1",
    "SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d FROM order_line WHERE ol_o_id = $2 AND ol_d_id = $3 AND ol_w_id = $1",
    "SELECT max(o_id) FROM orders WHERE o_w_id = $1 AND o_d_id = $2 AND o_c_id = $3",
    // Delivery
    "SELECT no_o_id FROM new_order WHERE no_d_id = $2 AND no_w_id = $1 ORDER BY no_o_id ASC LIMIT 1 FOR UPDATE SKIP LOCKED",
    "DELETE FROM new_order WHERE no_o_id = $2 AND no_d_id = $3 AND no_w_id = $1",
    "DELETE FROM new_order WHERE no_w_id = $1 AND no_o_id = (SELECT min(n.no_o_id) FROM new_order n WHERE n.no_w_id = $1 AND n.no_d_id = $2) RETURNING no_o_id",
    "UPDATE orders SET o_carrier_id = $2 WHERE o_id = $3 AND o_d_id = $4 AND o_w_id = $1",
    "UPDATE order_line SET ol_delivery_d = $2 WHERE ol_o_id = $3 AND ol_d_id = $4 AND ol_w_id = $1",
    "SELECT sum(ol_amount) FROM order_line WHERE ol_o_id = $2 AND ol_d_id = $3 AND ol_w_id = $1",
    // Stock level
    "SELECT d_next_o_id FROM district WHERE d_w_id = $1 AND d_id = $2",
    "SELECT count(DISTINCT (s_i_id)) FROM order_line, stock WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id < $3 AND ol_o_id >= $3 - 20 AND s_w_id = $1 AND s_i_id = ol_i_id AND s_quantity < $4",
    "SELECT count(*) FROM (SELECT s_i_id, s_w_id, s_quantity FROM stock WHERE s_w_id = $1 AND s_quantity < $2 AND s_i_id IN (SELECT ol_i_id FROM district JOIN order_line ON ol_w_id = d_w_id AND ol_d_id = d_id WHERE d_w_id = $1 AND d_id = $3)) AS low",
    // As object mappers write them
    "SELECT \"customer\".\"c_id\", \"customer\".\"c_last\" FROM \"customer\" WHERE (\"customer\".\"c_w_id\" = $1 AND \"customer\".\"c_last\" LIKE $2) ORDER BY \"customer\".\"c_id\" ASC LIMIT $3 OFFSET $4",
    "SELECT t0.c_id AS a1, t1.o_id AS a2 FROM customer t0 LEFT OUTER JOIN orders t1 ON t0.c_w_id = t1.o_w_id AND t0.c_id = t1.o_c_id WHERE (t0.c_w_id = $1) AND (t0.c_id IN ($2, $3, $4))",
    "SELECT EXISTS (SELECT 1 FROM customer WHERE c_w_id = $1 AND c_id = $2) AS present",
    "SELECT COUNT(*) AS \"total\" FROM \"orders\" WHERE \"o_w_id\" = $1 AND (\"o_carrier_id\" IS NULL OR \"o_carrier_id\" <> $2)",
    "INSERT INTO customer (c_w_id, c_d_id, c_id, c_last) VALUES ($1, $2, $3, $4) ON CONFLICT (c_w_id, c_d_id, c_id) DO UPDATE SET c_last = excluded.c_last RETURNING c_id",
    "WITH recent AS (SELECT o_id, o_c_id, o_w_id FROM orders WHERE o_w_id = $1 ORDER BY o_id DESC LIMIT 20) SELECT r.o_id, c.c_last FROM recent r JOIN customer c ON c.c_w_id = r.o_w_id AND c.c_id = r.o_c_id",
];

/// How an object mapper spells tables and columns.
struct Mapper {
    name: &'static str,
    /// What stands in FROM, by table and the alias it gets there.
    from: fn(&str, &str) -> String,
    column: fn(&str, &str, &str) -> String,
    /// A column by itself, and a table that is written.
    bare: fn(&str) -> String,
    /// What limits the rows.
    limit: &'static str,
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

const MAPPERS: [Mapper; 10] = [
    Mapper {
        name: "ActiveRecord",
        from: |t, _| quoted(t),
        column: |t, _, c| format!("\"{t}\".\"{c}\""),
        bare: quoted,
        limit: "LIMIT $9",
    },
    Mapper {
        name: "Django",
        from: |t, _| quoted(t),
        column: |t, _, c| format!("(\"{t}\".\"{c}\")"),
        bare: quoted,
        limit: "LIMIT 21",
    },
    Mapper {
        name: "SQLAlchemy",
        from: |t, _| t.into(),
        column: |t, _, c| format!("{t}.{c}"),
        bare: str::to_owned,
        limit: "LIMIT $9",
    },
    Mapper {
        name: "Hibernate",
        from: |t, a| format!("{t} {a}1_0"),
        column: |_, a, c| format!("{a}1_0.{c}"),
        bare: str::to_owned,
        limit: "FETCH FIRST $9 ROWS ONLY",
    },
    Mapper {
        name: "Prisma",
        from: |t, _| format!("\"public\".\"{t}\""),
        column: |t, _, c| format!("\"public\".\"{t}\".\"{c}\""),
        bare: quoted,
        limit: "LIMIT $9 OFFSET $10",
    },
    Mapper {
        name: "Diesel",
        from: |t, _| quoted(t),
        column: |t, _, c| format!("\"{t}\".\"{c}\""),
        bare: quoted,
        limit: "LIMIT $9",
    },
    Mapper {
        name: "SeaORM",
        from: |t, _| quoted(t),
        column: |t, _, c| format!("\"{t}\".\"{c}\""),
        bare: quoted,
        limit: "LIMIT $9 OFFSET $10",
    },
    Mapper {
        name: "TypeORM",
        from: |t, a| format!("\"{t}\" \"{a}\""),
        column: |_, a, c| format!("\"{a}\".\"{c}\""),
        bare: quoted,
        limit: "LIMIT 10",
    },
    Mapper {
        name: "Ecto",
        from: |t, a| format!("\"{t}\" AS {a}0"),
        column: |_, a, c| format!("{a}0.\"{c}\""),
        bare: quoted,
        limit: "LIMIT $9",
    },
    Mapper {
        name: "Entity Framework",
        from: |t, a| format!("{t} AS {a}"),
        column: |_, a, c| format!("{a}.{c}"),
        bare: str::to_owned,
        limit: "LIMIT $9",
    },
];

/// What object mappers send about the orders and customers of one warehouse.
fn mapped(mapper: &Mapper) -> Vec<String> {
    let (order, customer) = ((mapper.from)("orders", "o"), (mapper.from)("customer", "c"));
    let o = |column: &str| (mapper.column)("orders", "o", column);
    let c = |column: &str| (mapper.column)("customer", "c", column);
    let b = mapper.bare;
    let (home, id, limit) = (o("o_w_id"), o("o_id"), mapper.limit);
    let table = if mapper.name == "Prisma" { order.clone() } else { b("orders") };
    let own = format!("{home} = $1");
    let written = format!("{} = $1 AND {} = $2", b("o_w_id"), b("o_id"));
    let select = format!("SELECT {id}, {home}, {} FROM {order}", o("o_carrier_id"));
    let insert = format!(
        "INSERT INTO {table} ({}, {}, {}) VALUES ($2, $1, $3)",
        b("o_id"),
        b("o_w_id"),
        b("o_c_id")
    );
    let on = format!("{} = {home} AND {} = {}", c("c_w_id"), c("c_id"), o("o_c_id"));
    vec![
        format!("{select} WHERE {own} AND {id} = $2 {limit}"),
        format!("{select} WHERE ({own}) AND ({id} = $2)"),
        format!("{select} WHERE {own} ORDER BY {id} DESC {limit}"),
        format!("{select} WHERE {own} AND {id} > $2 ORDER BY {id} ASC {limit}"),
        format!("SELECT COUNT(*) AS total FROM {order} WHERE {own}"),
        format!("SELECT 1 AS one FROM {order} WHERE {own} AND {id} = $2 LIMIT 1"),
        format!(
            "SELECT {}, COUNT({id}) AS n FROM {order} WHERE {own} GROUP BY {} HAVING COUNT({id}) > $2",
            o("o_c_id"),
            o("o_c_id")
        ),
        format!("{select} WHERE {own} AND {id} IN ($2, $3, $4)"),
        format!("{select} INNER JOIN {customer} ON {on} WHERE {own}"),
        format!(
            "{select} LEFT OUTER JOIN {customer} ON {on} WHERE {own} AND {id} = $2 ORDER BY {id}"
        ),
        format!("{insert} RETURNING {}", b("o_id")),
        insert.clone(),
        format!("UPDATE {table} SET {} = $3 WHERE {written}", b("o_carrier_id")),
        format!(
            "UPDATE {table} SET {} = $3, {} = {} + 1 WHERE {written} RETURNING {}",
            b("o_carrier_id"),
            b("o_ol_cnt"),
            b("o_ol_cnt"),
            b("o_id")
        ),
        format!("DELETE FROM {table} WHERE {written}"),
        format!(
            "{insert} ON CONFLICT ({}, {}) DO UPDATE SET {} = EXCLUDED.{}",
            b("o_w_id"),
            b("o_id"),
            b("o_c_id"),
            b("o_c_id")
        ),
        format!("{select} WHERE {own} AND {id} = $2 FOR UPDATE"),
        format!(
            "{select} WHERE {own} AND NOT EXISTS (SELECT 1 FROM {customer} WHERE {} = $1 AND {} = {})",
            c("c_w_id"),
            c("c_id"),
            o("o_c_id")
        ),
        format!(
            "{select} WHERE {own} AND {} BETWEEN $2 AND $3 AND CAST({} AS TEXT) LIKE $4",
            o("o_entry_d"),
            o("o_carrier_id")
        ),
        format!(
            "{select} WHERE {own} AND ({} IS NULL OR {} <> $2) AND {id} = ANY($3)",
            o("o_carrier_id"),
            o("o_carrier_id")
        ),
    ]
}

fn router(bytes: usize) -> ShardRouter {
    let mut builder = ShardedDatabase::builder().route_cache_bytes(bytes).reference("item");
    for (table, key) in [
        ("pgbench_accounts", "bid"),
        ("pgbench_branches", "bid"),
        ("pgbench_history", "bid"),
        ("pgbench_tellers", "bid"),
        ("customer", "c_w_id"),
        ("district", "d_w_id"),
        ("history", "h_w_id"),
        ("new_order", "no_w_id"),
        ("order_line", "ol_w_id"),
        ("orders", "o_w_id"),
        ("stock", "s_w_id"),
        ("warehouse", "w_id"),
    ] {
        builder = builder.table(table, key, KeyType::Int);
        builder = builder.table(format!("public.{table}"), key, KeyType::Int);
    }
    for shard in 0..4 {
        builder = builder.shard(format!("shard_{shard}"), "sqlite::memory:");
    }
    builder.router().expect("a router")
}

#[test]
fn ordinary_statements_go_to_one_shard() {
    let router = router(16 << 20);
    // The catalogue of what is sold is the same everywhere: it names no key.
    let statements =
        STATEMENTS.iter().filter(|sql| !sql.contains("FROM item")).map(|sql| (*sql).to_owned());
    let statements: Vec<String> = statements.chain(MAPPERS.iter().flat_map(mapped)).collect();
    let mut others = Vec::new();
    for sql in &statements {
        match router.explain_route(sql, &[Param::Int(7); 12]) {
            Ok(route) if route.kind == RouteKind::Single => {}
            Ok(route) => others.push(format!("{sql}: {route}")),
            Err(error) => others.push(format!("{sql}: {error}")),
        }
    }
    let (all, single) = (statements.len(), statements.len() - others.len());
    println!(
        "FIGURE sharding.coverage {:.4} ({single} of {all} go to one shard)",
        single as f64 / all as f64
    );
    assert!(all >= 230, "{all}");
    assert!(others.len() * 50 <= all, "{others:#?}");
}

#[test]
fn a_known_route_allocates_nothing() {
    let router = router(16 << 20);
    for sql in STATEMENTS {
        let params = [Param::Int(7); 12];
        let first = router.route(sql, &params).expect("routed");
        let home = router.shard_for(7).expect("a shard");
        assert!(matches!(first, Route::Any) || first == Route::Shard(home), "{sql}");
        let again = allocation_counter::measure(|| {
            let _ = router.route(sql, &params);
        });
        assert_eq!(again.count_total, 0, "{sql}");
    }
}

#[test]
fn thousands_of_long_lists_stay_within_the_bytes() {
    const BYTES: usize = 4 << 20;
    let router = router(BYTES);
    let list = |from: usize| {
        let list: Vec<String> = (0..600).map(|n| (from + n).to_string()).collect();
        format!("SELECT c_id FROM customer WHERE c_w_id IN ({})", list.join(", "))
    };
    // The first ones set up what a thread and the parser keep for good.
    assert!(router.route(&list(0), params![]).is_ok());
    let held = allocation_counter::measure(|| {
        for n in 1..600 {
            let _ = router.route(&list(n * 1_000), params![]);
            assert!(router.cached_bytes() <= BYTES);
        }
    });
    assert!(router.cached_bytes() > BYTES / 64, "{}", router.cached_bytes());
    let bytes = held.bytes_current;
    assert!(bytes <= 2 * i64::try_from(BYTES).expect("small"), "{bytes} bytes are held");
}
