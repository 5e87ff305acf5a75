//! Statements made to mislead a router, each run on three shards and on one database: the answers agree, or it is refused.

use resonant_db::params;

use super::twins::{By, Outcome, Twins};

/// `$1` and `$2` are keys of two shards.
pub(crate) async fn reads_that_mislead(twins: &Twins) {
    let (here, there) = twins.apart();
    for sql in [
        // An aggregate whose arguments are all of the outer query belongs to that one.
        "SELECT (SELECT count(a.id)) FROM agents a WHERE a.org_id IN ($1, $2)",
        "SELECT (SELECT count(score) FROM countries LIMIT 1) FROM agents WHERE org_id IN ($1, $2)",
        "SELECT (SELECT max(a.score) FROM countries c WHERE c.code = 'pl') FROM agents a WHERE a.org_id IN ($1, $2)",
        "SELECT (SELECT max(c.code || a.name) FROM countries c) FROM agents a WHERE a.org_id IN ($1, $2)",
        // One per key, or one in all.
        "SELECT count(*) FROM agents WHERE org_id IN ($1, $2)",
        "SELECT DISTINCT name FROM agents WHERE org_id IN ($1, $2)",
        "SELECT name FROM agents WHERE org_id IN ($1, $2) GROUP BY name",
        "SELECT org_id, count(*) FROM agents WHERE org_id IN ($1, $2) GROUP BY org_id",
        "SELECT count(*) FROM agents WHERE org_id IN ($1, $2) HAVING count(*) > 5",
        "SELECT rank() OVER (ORDER BY score), id FROM agents WHERE org_id IN ($1, $2)",
        "SELECT sum(score) OVER w FROM agents WHERE org_id IN ($1, $2) WINDOW w AS (ORDER BY score)",
        "SELECT score FROM agents WHERE org_id IN ($1, $2) ORDER BY score, org_id, id LIMIT 3",
        "SELECT score FROM agents WHERE org_id IN ($1, $2) ORDER BY score, org_id, id LIMIT 3 OFFSET 2",
        "SELECT x.n FROM (SELECT count(*) AS n FROM agents WHERE org_id IN ($1, $2)) x",
        "SELECT x.n FROM (SELECT id AS n FROM agents WHERE org_id IN ($1, $2) ORDER BY org_id, id LIMIT 2) x",
        "WITH x AS (SELECT count(*) AS n FROM agents WHERE org_id IN ($1, $2)) SELECT n FROM x",
        "SELECT EXISTS (SELECT 1 FROM agents WHERE org_id IN ($1, $2) AND score > 20)",
        "SELECT id FROM agents WHERE org_id = $1 UNION SELECT id FROM agents WHERE org_id = $2",
        "SELECT id FROM agents WHERE org_id = $1 EXCEPT SELECT id FROM agents WHERE org_id = $2",
        "SELECT id FROM agents WHERE org_id = $1 INTERSECT SELECT agent_id FROM tasks WHERE org_id = $2",
        "SELECT id FROM agents WHERE org_id IN ($1, $2) UNION SELECT agent_id FROM tasks WHERE org_id IN ($1, $2)",
        // One answer made of several.
        "SELECT count(*), sum(score), min(score), max(id) FROM agents WHERE org_id IN ($1, $2)",
        "SELECT count(*) FILTER (WHERE score > 3) AS n FROM agents WHERE org_id IN ($1, $2)",
        "SELECT sum(score) FROM agents WHERE org_id IN ($1, $2) AND id > 90",
        "SELECT count(DISTINCT name) FROM agents WHERE org_id IN ($1, $2)",
        "SELECT avg(score) FROM agents WHERE org_id IN ($1, $2)",
        "SELECT sum(score * 0.1) FROM agents WHERE org_id IN ($1, $2)",
        "SELECT min(name) FROM agents WHERE org_id IN ($1, $2)",
        "SELECT count(*) + 1 FROM agents WHERE org_id IN ($1, $2)",
        "SELECT count(*), name FROM agents WHERE org_id IN ($1, $2)",
        "SELECT count(*) FROM agents WHERE org_id IN ($1, $2) LIMIT 0",
        "SELECT sum(count(*)) OVER () FROM agents WHERE org_id IN ($1, $2)",
        "SELECT a.org_id, count(t.goal) FROM agents a LEFT JOIN tasks t ON t.org_id = a.org_id WHERE a.org_id IN ($1, $2) GROUP BY a.org_id HAVING count(*) > 1",
        "SELECT t.org_id, count(*) FROM agents a LEFT JOIN tasks t ON t.org_id = a.org_id AND t.agent_id > a.id WHERE a.org_id IN ($1, $2) GROUP BY t.org_id",
        "SELECT name AS org_id, count(*) FROM agents WHERE org_id IN ($1, $2) GROUP BY org_id",
        "SELECT DISTINCT name AS org_id FROM agents WHERE org_id IN ($1, $2)",
        "SELECT DISTINCT count(*) FROM agents WHERE org_id IN ($1, $2) GROUP BY org_id",
        "SELECT DISTINCT org_id, name FROM agents WHERE org_id IN ($1, $2)",
        "SELECT DISTINCT * FROM agents WHERE org_id IN ($1, $2)",
        "SELECT DISTINCT t.org_id FROM agents a LEFT JOIN tasks t ON t.org_id = a.org_id AND t.agent_id > 5 WHERE a.org_id IN ($1, $2)",
        "SELECT org_id, rank() OVER (PARTITION BY org_id ORDER BY score) FROM agents WHERE org_id IN ($1, $2)",
        "SELECT rank() OVER w FROM agents WHERE org_id IN ($1, $2) WINDOW w AS (PARTITION BY org_id ORDER BY score)",
        "SELECT org_id, rank() OVER (ORDER BY count(*)) FROM agents WHERE org_id IN ($1, $2) GROUP BY org_id",
        "SELECT count(*) FROM agents a JOIN tasks t ON t.org_id = a.org_id WHERE a.org_id IN ($1, $2)",
        "SELECT max((SELECT count(*) FROM tasks t WHERE t.org_id = a.org_id)) FROM agents a WHERE a.org_id IN ($1, $2)",
        "SELECT count(*) FROM agents GROUP BY 1 HAVING min(org_id) = $1",
        // The other side of a join on another shard.
        "SELECT a.id, t.goal FROM agents a JOIN tasks t ON t.agent_id = a.id WHERE a.org_id = $1 AND t.org_id = $2",
        "SELECT a.id, t.goal FROM agents a LEFT JOIN tasks t ON t.agent_id = a.id AND t.org_id = $2 WHERE a.org_id = $1",
        "SELECT a.id, t.goal FROM agents a JOIN tasks t ON t.agent_id = a.id WHERE a.org_id IN ($1, $2) AND t.org_id IN ($1, $2)",
        "SELECT a.id, t.goal FROM agents a JOIN tasks t ON t.org_id >= a.org_id WHERE a.org_id IN ($1, $2)",
        "SELECT a.id, t.goal FROM agents a, tasks t WHERE a.org_id IN ($1, $2) AND t.org_id = a.org_id",
        "SELECT a.id, t.goal FROM agents a LEFT JOIN tasks t USING (org_id) WHERE a.org_id IN ($1, $2)",
        "SELECT a.id, t.goal FROM agents a RIGHT JOIN tasks t USING (org_id) WHERE a.org_id IN ($1, $2)",
        "SELECT a.id, t.goal FROM agents a FULL JOIN tasks t USING (org_id) WHERE org_id IN ($1, $2)",
        "SELECT a.id, t.goal FROM agents a FULL JOIN tasks t ON t.agent_id = a.id WHERE a.org_id = $1 AND t.org_id = $2",
        "SELECT a.id FROM agents a LEFT JOIN tasks t ON t.org_id = a.org_id AND t.agent_id > 5 WHERE a.org_id IN ($1, $2) AND t.org_id IS NULL",
        "SELECT c.code, a.id FROM countries c LEFT JOIN agents a ON a.name = c.code AND a.org_id IN ($1, $2)",
        "SELECT c.code, a.id FROM countries c LEFT JOIN agents a ON a.name = c.code WHERE a.org_id IN ($1, $2)",
        "SELECT c.code, a.id FROM agents a RIGHT JOIN countries c ON a.name = c.code AND a.org_id IN ($1, $2)",
        "SELECT c.code, a.id FROM countries c JOIN agents a ON a.name = c.code AND a.org_id IN ($1, $2)",
        // Subqueries of one key under rows of another.
        "SELECT id FROM agents a WHERE a.org_id = $1 AND EXISTS (SELECT 1 FROM tasks t WHERE t.org_id = $2 AND t.agent_id = a.id)",
        "SELECT id FROM agents WHERE org_id IN ($1, $2) AND id IN (SELECT agent_id FROM tasks WHERE org_id = $1)",
        "SELECT id FROM agents WHERE org_id IN ($1, $2) AND score = (SELECT max(b.score) FROM agents b WHERE b.org_id IN ($1, $2))",
        "SELECT id, (SELECT count(*) FROM tasks t WHERE t.org_id = a.org_id) FROM agents a WHERE a.org_id IN ($1, $2)",
        "SELECT id, (SELECT count(*) FROM tasks t WHERE t.org_id <= a.org_id) FROM agents a WHERE a.org_id IN ($1, $2)",
        "SELECT id FROM agents a WHERE a.org_id IN ($1, $2) AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.org_id = a.org_id AND t.agent_id = a.id)",
        // A key in a place that looks like a condition.
        "SELECT id FROM agents WHERE (org_id = $1) = (score > 3)",
        "SELECT id FROM agents WHERE (org_id = $1) OR 1 = 1",
        "SELECT id FROM agents WHERE (org_id = $1) IS NOT NULL",
        "SELECT id FROM agents WHERE coalesce(org_id = $1, 1)",
        "SELECT id FROM agents WHERE CASE WHEN org_id = $1 THEN 1 ELSE 1 END = 1",
        "SELECT id FROM agents WHERE org_id = $1 = 1",
        "SELECT id FROM agents WHERE 0 = org_id = $1",
        "SELECT id FROM agents WHERE org_id = $1 IS NOT 1",
        "SELECT id FROM agents WHERE NOT (org_id <> $1 AND 1 = 1)",
        "SELECT id FROM agents WHERE org_id NOT IN ($1, $2)",
        "SELECT id FROM agents WHERE org_id BETWEEN $1 AND $2",
        "SELECT id FROM agents WHERE score BETWEEN 0 AND org_id = $1",
        "SELECT id FROM agents WHERE org_id LIKE $1",
        "SELECT id FROM agents WHERE org_id = $1 COLLATE NOCASE",
        "SELECT id FROM agents WHERE org_id COLLATE NOCASE = upper($1)",
        "SELECT id FROM agents WHERE lower(org_id) = $1",
        "SELECT id FROM agents WHERE org_id || '' = $1",
        "SELECT id FROM agents WHERE org_id IN ($1, lower($2))",
        "SELECT id FROM agents WHERE org_id IN ($1, NULL)",
        "SELECT id FROM agents WHERE org_id = NULL",
        "SELECT id FROM agents WHERE org_id IS NOT DISTINCT FROM $1",
        "SELECT id FROM agents WHERE org_id IS NULL OR org_id = $1",
        "SELECT id FROM agents WHERE org_id = $1 OR (org_id = $2 AND score > 3)",
        "SELECT id FROM agents WHERE (org_id = $1 AND id = 1) OR (id = 2 AND org_id = $2) OR score = 6",
        "SELECT id FROM agents WHERE (org_id, id) IN (($1, 1), ($2, 2))",
        "SELECT id FROM agents WHERE (org_id, id) = ($1, 1)",
        "SELECT id FROM agents WHERE (org_id, id) > ($1, 1)",
        "SELECT id FROM agents WHERE org_id = \"org_1\"",
        "SELECT id FROM agents WHERE \"ORG_ID\" = $1",
        // A name that is not the key's.
        "SELECT name AS org_id FROM agents WHERE org_id = $1",
        "SELECT * FROM (SELECT name AS org_id, id FROM agents WHERE org_id = $1) x JOIN tasks t ON t.org_id = x.org_id",
        "SELECT * FROM (SELECT name AS org_id, org_id AS \"ORG_ID\" FROM agents WHERE org_id = $1) x JOIN tasks t ON t.org_id = x.org_id",
        "WITH agents AS (SELECT code AS org_id, 1 AS id FROM countries) SELECT id FROM agents WHERE org_id = $1",
        "WITH x AS (SELECT id FROM agents WHERE org_id = $1) SELECT a.id FROM agents a JOIN x ON x.id = a.id",
        "WITH x (org_id, id) AS (SELECT name, id FROM agents WHERE org_id = $1) SELECT t.goal FROM x JOIN tasks t ON t.org_id = x.org_id",
        "WITH x AS (SELECT org_id, id FROM agents WHERE org_id IN ($1, $2)) SELECT x.id, t.goal FROM x JOIN tasks t ON t.org_id = x.org_id",
        "SELECT a.id FROM agents a, (SELECT org_id FROM agents WHERE org_id = $2) a2 WHERE a.org_id = a2.org_id AND a.org_id = $1",
        "SELECT a.id FROM tasks a WHERE a.org_id = $1 AND EXISTS (SELECT 1 FROM agents a WHERE a.id = 1)",
        "SELECT a.id FROM agents a WHERE a.org_id = $1 AND EXISTS (SELECT 1 FROM countries a JOIN tasks t ON t.org_id = a.name)",
        "WITH RECURSIVE r AS (SELECT id, org_id FROM agents WHERE org_id = $1 UNION SELECT a.id, a.org_id FROM agents a JOIN r ON a.id = r.id + 1) SELECT * FROM r",
        "WITH RECURSIVE r (id) AS (SELECT 0 UNION SELECT a.id FROM agents a JOIN r ON a.id = r.id + 1 WHERE a.org_id = $1) SELECT * FROM r",
        "SELECT id FROM agents AS org_id WHERE org_id = $1",
        "SELECT rowid FROM agents WHERE org_id = $1",
        "SELECT id FROM main.agents WHERE org_id = $1",
        "SELECT id FROM agents NATURAL JOIN tasks WHERE org_id = $1",
    ] {
        for (one, two) in [(&here, &there), (&there, &here), (&here, &here)] {
            for params in [params![one, two], params![one], params![]] {
                let needed = usize::from(sql.contains("$1")) + usize::from(sql.contains("$2"));
                if params.len() == needed {
                    twins.agree(By::Query, sql, params).await;
                    twins.agree(By::QueryAll, sql, params).await;
                }
            }
        }
    }
}

pub(crate) async fn reads_of_every_shard_that_mislead(twins: &Twins) {
    let mut answered = 0;
    for sql in [
        "SELECT org_id, id FROM agents",
        "SELECT a.id, t.goal FROM agents a JOIN tasks t ON t.org_id = a.org_id AND t.agent_id = a.id",
        "SELECT a.id, t.goal FROM agents a LEFT JOIN tasks t ON t.org_id = a.org_id AND t.agent_id = a.id",
        "SELECT a.id, c.name FROM agents a LEFT JOIN countries c ON c.code = a.name WHERE a.score > 3",
        "SELECT id FROM agents a WHERE EXISTS (SELECT 1 FROM tasks t WHERE t.org_id = a.org_id AND t.agent_id = a.id)",
        "SELECT c.name, a.id FROM countries c JOIN agents a ON a.name = c.code",
        "SELECT a.id, t.goal FROM agents a LEFT JOIN tasks t ON t.agent_id = a.id",
        "SELECT a.id FROM agents a, tasks t",
        "SELECT c.name, a.id FROM countries c LEFT JOIN agents a ON a.name = c.code AND a.score > 100",
        "SELECT c.name, a.id FROM agents a RIGHT JOIN countries c ON a.name = c.code AND a.score > 100",
        "SELECT c.name, a.id FROM agents a FULL JOIN countries c ON a.name = c.code AND a.score > 100",
        "SELECT a.id, t.goal FROM agents a FULL JOIN tasks t ON t.org_id = a.org_id AND t.agent_id = a.id",
        "SELECT name FROM countries",
        "SELECT 1",
        "SELECT count(*) FROM agents",
        "SELECT (SELECT count(a.id)) FROM agents a",
        "SELECT (SELECT count(score) FROM countries) FROM agents",
        "SELECT count(*), sum(score), min(id) FROM agents",
        "SELECT count(*) FROM agents a LEFT JOIN tasks t ON t.org_id = a.org_id",
        "SELECT count(*) FROM agents a LEFT JOIN tasks t ON t.agent_id = a.id",
        "SELECT org_id, max(score) FROM agents GROUP BY org_id",
        "SELECT name, max(score) FROM agents GROUP BY name",
        "SELECT DISTINCT org_id, name FROM agents",
        "SELECT DISTINCT name FROM agents",
        "SELECT id FROM agents LIMIT 3",
        "SELECT id FROM agents UNION ALL SELECT agent_id FROM tasks",
        "SELECT id FROM (SELECT id FROM agents) x",
        "WITH x AS (SELECT id FROM agents) SELECT id FROM x",
        "SELECT id FROM agents WHERE id IN (SELECT agent_id FROM tasks)",
        "SELECT id FROM agents a WHERE score > (SELECT max(score) FROM agents b WHERE b.id = a.id) - 5",
        "SELECT id, row_number() OVER (PARTITION BY org_id ORDER BY id) FROM agents",
        "SELECT a.id FROM agents a JOIN agents b ON b.org_id = a.org_id JOIN tasks t ON t.agent_id = b.id",
        "SELECT a.id FROM agents a LEFT JOIN (tasks t JOIN agents b ON b.org_id = t.org_id) ON t.org_id = a.org_id AND b.id = 3",
        "SELECT a.id FROM tasks t RIGHT JOIN agents a ON a.org_id = t.org_id AND t.agent_id = 9",
        // Order, and what it is by.
        "SELECT id, score FROM agents ORDER BY 1, 2",
        "SELECT id, score FROM agents ORDER BY 2 DESC, 1 LIMIT 5 OFFSET 3",
        "SELECT id AS score, score AS id FROM agents ORDER BY 1, 2 LIMIT 7",
        "SELECT id AS score FROM agents ORDER BY score LIMIT 7",
        "SELECT a.score FROM agents a JOIN agents b ON b.org_id = a.org_id AND b.id = a.id ORDER BY score LIMIT 7",
        "SELECT score FROM agents ORDER BY id * 100 + score LIMIT 7",
        "SELECT score FROM agents ORDER BY -score LIMIT 7",
        "SELECT max(score) FROM agents GROUP BY org_id ORDER BY max(score) LIMIT 3",
        "SELECT count(*) FROM agents GROUP BY org_id ORDER BY org_id LIMIT 3",
        "SELECT count(*), org_id FROM agents GROUP BY org_id ORDER BY count(*) + 1, org_id LIMIT 3",
        "SELECT (SELECT 1), score FROM agents ORDER BY (SELECT 1), score LIMIT 3",
        "SELECT score FROM agents ORDER BY (SELECT max(agent_id) FROM tasks), score LIMIT 3",
        "SELECT * FROM (SELECT 1 AS x) y JOIN agents ON agents.id = y.x ORDER BY score LIMIT 3",
        "SELECT score, score FROM agents ORDER BY score, 2 LIMIT 7",
        "SELECT id AS x, score AS x FROM agents ORDER BY x LIMIT 7",
        "SELECT score FROM agents ORDER BY 2",
        "SELECT score FROM agents ORDER BY score + 0, id LIMIT 0",
        "SELECT id FROM agents ORDER BY id LIMIT 4 OFFSET 1000",
        "SELECT id FROM agents ORDER BY id LIMIT 1 + 1",
        "SELECT id FROM agents ORDER BY id LIMIT NULL",
        "SELECT id FROM agents ORDER BY id LIMIT -1",
        "SELECT id FROM agents ORDER BY id FETCH FIRST 2 ROWS ONLY",
        "SELECT DISTINCT id FROM agents ORDER BY 1 DESC LIMIT 2",
        "SELECT DISTINCT id FROM agents ORDER BY score",
        "SELECT DISTINCT name, id FROM agents ORDER BY 1, 2",
        "SELECT DISTINCT count(*) FROM agents GROUP BY name",
        "SELECT DISTINCT *, 1 FROM countries",
        // Groups over shards.
        "SELECT id, count(*), avg(score), sum(score), min(score), max(score) FROM agents GROUP BY id",
        "SELECT id, avg(score) AS mean FROM agents GROUP BY id ORDER BY mean DESC LIMIT 2",
        "SELECT id, avg(score) FILTER (WHERE score > 5) FROM agents GROUP BY 1 ORDER BY 1",
        "SELECT count(*), avg(score) FROM agents LIMIT 0",
        "SELECT count(*) FROM agents LIMIT 5 OFFSET 1",
        "SELECT avg(score), avg(id), avg(score + id), avg(nullif(id, id)) FROM agents",
        "SELECT avg(score * 0.5) FROM agents",
        "SELECT avg(DISTINCT score) FROM agents",
        "SELECT sum(score), id FROM agents GROUP BY id HAVING sum(score) > 50",
        "SELECT sum(score) FROM agents GROUP BY id",
        "SELECT id % 2, sum(score) FROM agents GROUP BY id % 2",
        "SELECT id % 2, sum(score) FROM agents GROUP BY 1 ORDER BY 1, 2",
        "SELECT id % 2 AS id, sum(score) FROM agents GROUP BY id",
        "SELECT id % 2, sum(score) FROM agents GROUP BY id",
        "SELECT id + 1, id, sum(score) FROM agents GROUP BY id",
        "SELECT id, sum(score) + 1 FROM agents GROUP BY id",
        "SELECT id, 'x', sum(score) FROM agents GROUP BY id, 2",
        "SELECT id, sum(sum(score)) OVER () FROM agents GROUP BY id",
        "SELECT id, count(*) FROM agents GROUP BY ROLLUP (id)",
        "SELECT id, score, count(*) FROM agents GROUP BY id, score ORDER BY 3 DESC, 1, 2",
        "SELECT t.agent_id, count(a.id) FROM agents a LEFT JOIN tasks t ON t.org_id = a.org_id AND t.agent_id = a.id GROUP BY t.agent_id",
        "SELECT c.name, count(*) FROM agents a JOIN countries c ON c.code = a.name GROUP BY c.name",
        "SELECT min(name), max(name) FROM agents",
        "SELECT min(score) FROM agents WHERE id > 90",
        "SELECT org_id FROM agents a JOIN tasks t USING (org_id)",
        "SELECT org_id FROM agents a LEFT JOIN tasks t USING (org_id) LEFT JOIN agents b USING (org_id)",
        "SELECT a.id FROM agents a RIGHT JOIN tasks t USING (org_id) LEFT JOIN agents b USING (org_id)",
    ] {
        answered +=
            usize::from(twins.agree(By::QueryAll, sql, params![]).await == Outcome::Answered);
    }
    assert!(answered >= 35, "only {answered} were answered");
}

pub(crate) async fn writes_that_mislead(twins: &Twins) {
    let (here, there) = twins.apart();
    let mut answered = 0;
    for sql in [
        "INSERT INTO agents (org_id, id) VALUES ($1, 10), ($2, 10)",
        "INSERT INTO agents (id, org_id) VALUES (11, $1), (12, $2), (13, $1) ON CONFLICT (org_id, id) DO NOTHING",
        "INSERT INTO agents (org_id, id) VALUES ($1, 10) ON CONFLICT (org_id, id) DO UPDATE SET score = coalesce(agents.score, 0) + 1",
        "INSERT INTO agents (org_id, id) VALUES ($1, 10) ON CONFLICT DO NOTHING",
        "INSERT INTO agents (org_id, id) VALUES ($1, 10) ON CONFLICT (org_id, id) DO UPDATE SET org_id = $2",
        "INSERT OR REPLACE INTO agents (org_id, id) VALUES ($1, 10)",
        "INSERT INTO agents (org_id, id) VALUES (lower($1), 14)",
        "INSERT INTO agents (org_id, id) VALUES (NULL, 14)",
        "INSERT INTO agents VALUES ($1, 15, 'x', 1)",
        "INSERT INTO agents (id) VALUES (16)",
        "INSERT INTO agents (org_id, id, score) VALUES ($1, 17, (SELECT count(*) FROM tasks WHERE org_id = $2))",
        "INSERT INTO agents (org_id, id, score) VALUES ($1, 18, (SELECT count(*) FROM tasks WHERE org_id = $1))",
        "INSERT INTO agents (org_id, id, score) VALUES ($1, 19, (SELECT count(*) FROM countries)), ($2, 19, 1)",
        "INSERT INTO tasks (org_id, agent_id) SELECT org_id, id FROM agents WHERE org_id = $1",
        "INSERT INTO tasks (org_id, agent_id) SELECT org_id, id FROM agents WHERE org_id IN ($1, $2)",
        "INSERT INTO tasks (org_id, agent_id) SELECT $2, id FROM agents WHERE org_id = $1",
        "INSERT INTO tasks (org_id, agent_id) SELECT name, id FROM agents WHERE org_id = $1 AND name IS NOT NULL",
        "INSERT INTO tasks (agent_id, org_id) SELECT org_id, id FROM agents WHERE org_id = $1",
        "INSERT INTO tasks (org_id, agent_id) SELECT a.org_id, b.id FROM agents b LEFT JOIN agents a ON a.org_id = b.org_id AND a.id = 99 WHERE b.org_id = $1 AND a.org_id IS NOT NULL",
        "INSERT INTO tasks (org_id, agent_id) SELECT x.org_id, x.id FROM (SELECT org_id, id FROM agents WHERE org_id = $1) x",
        "INSERT INTO tasks (org_id, agent_id) SELECT org_id, id FROM agents WHERE org_id = $1 UNION ALL SELECT org_id, id FROM agents WHERE org_id = $2",
        "INSERT INTO tasks (org_id, agent_id) WITH x AS (SELECT org_id, id FROM agents WHERE org_id = $1) SELECT org_id, id FROM x",
        "INSERT INTO tasks (org_id, agent_id) SELECT * FROM (SELECT org_id, id FROM agents WHERE org_id = $1) x",
        "INSERT INTO tasks (org_id, agent_id) SELECT $1, 5",
        "INSERT INTO tasks (org_id, agent_id) SELECT $1, score FROM agents",
        "UPDATE agents SET score = score + 1 WHERE org_id = $1",
        "UPDATE agents SET score = score + 1 WHERE org_id IN ($1, $2)",
        "UPDATE agents SET score = score + 1 WHERE org_id = $1 OR id = 2",
        "UPDATE agents SET org_id = $2 WHERE org_id = $1",
        "UPDATE agents SET \"ORG_ID\" = $2 WHERE org_id = $1",
        "UPDATE agents SET (org_id, score) = ($2, 1) WHERE org_id = $1",
        "UPDATE agents SET score = (SELECT count(*) FROM tasks t WHERE t.org_id = agents.org_id) WHERE org_id IN ($1, $2)",
        "UPDATE agents SET score = (SELECT count(*) FROM tasks t WHERE t.org_id = $2) WHERE org_id = $1",
        "UPDATE agents SET score = (SELECT count(*) FROM tasks) WHERE org_id = $1",
        "UPDATE agents SET score = t.agent_id FROM tasks t WHERE t.org_id = agents.org_id AND t.goal = 'none' AND agents.org_id = $1",
        "UPDATE agents SET score = 5 FROM tasks t WHERE t.agent_id = agents.id AND agents.org_id = $1",
        "UPDATE agents AS a SET score = 7 WHERE a.org_id = $1 AND a.id IN (SELECT agent_id FROM tasks WHERE org_id = $2)",
        "UPDATE agents SET name = $1 WHERE org_id IN ($1, $2)",
        "UPDATE agents SET score = 1",
        "DELETE FROM tasks WHERE org_id IN ($1, $2) AND agent_id = 5",
        "DELETE FROM tasks WHERE org_id = $1 AND agent_id IN (SELECT id FROM agents WHERE org_id = $2)",
        "DELETE FROM tasks WHERE agent_id = 1",
        "DELETE FROM tasks WHERE org_id = $1 AND EXISTS (SELECT 1 FROM agents a WHERE a.org_id = tasks.org_id AND a.id = 10)",
        "DELETE FROM tasks",
        "DELETE FROM countries",
        "UPDATE countries SET name = 'x'",
        "INSERT INTO countries (code, name) VALUES ('x', 'y')",
        "WITH gone AS (DELETE FROM tasks RETURNING *) SELECT * FROM gone",
        "WITH x AS (SELECT 1) DELETE FROM tasks WHERE org_id = $1",
    ] {
        for (one, two) in [(&here, &there), (&here, &here)] {
            let params = params![one, two];
            let needed = if sql.contains("$2") { 2 } else { usize::from(sql.contains("$1")) };
            for by in [By::Execute, By::ExecuteSplit] {
                // A split write that fails on one shard is not undone on the others, which is its stated limit.
                let outcome = twins.agree(by, sql, &params[..needed]).await;
                answered += usize::from(outcome == Outcome::Answered);
                if outcome == Outcome::Rejected && by == By::ExecuteSplit {
                    continue;
                }
                twins.same_rows().await;
            }
        }
    }
    assert!(answered >= 30, "only {answered} were answered");
}

pub(crate) async fn returned_rows_are_those_of_one_database(twins: &Twins) {
    let (here, there) = twins.apart();
    for sql in [
        "INSERT INTO agents (org_id, id) VALUES ($1, 20) RETURNING org_id, id",
        "UPDATE agents SET score = score + 1 WHERE org_id = $1 RETURNING id, score",
        "UPDATE agents SET score = score + 1 WHERE org_id IN ($1, $2) RETURNING id, score",
        "DELETE FROM agents WHERE org_id = $1 AND id = 20 RETURNING *",
        "INSERT INTO agents (org_id, id) VALUES ($1, 21), ($2, 21) RETURNING id",
    ] {
        let params = params![here, there];
        let needed = if sql.contains("$2") { 2 } else { 1 };
        twins.agree(By::Query, sql, &params[..needed]).await;
        twins.same_rows().await;
    }
}

mod on_sqlite {
    use super::Twins;

    #[tokio::test]
    async fn reads_that_mislead() {
        super::reads_that_mislead(&Twins::sqlite().await).await;
    }

    #[tokio::test]
    async fn reads_of_every_shard_that_mislead() {
        super::reads_of_every_shard_that_mislead(&Twins::sqlite().await).await;
    }

    #[tokio::test]
    async fn writes_that_mislead() {
        super::writes_that_mislead(&Twins::sqlite().await).await;
    }

    #[tokio::test]
    async fn returned_rows_are_those_of_one_database() {
        super::returned_rows_are_those_of_one_database(&Twins::sqlite().await).await;
    }
}
