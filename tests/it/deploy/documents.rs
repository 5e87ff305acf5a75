//! The arithmetic of docs/capacity.md, done again from the files.

use super::Files;
use super::files::{at, number, quantity, words};
use super::kustomize::render;
use super::model::{Model, ROLES};

/// The rows of the table that follows a heading and has this first column.
fn table(files: &Files, heading: &str, first: &str) -> Vec<Vec<String>> {
    let text = files.text("docs/capacity.md");
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let from = section.find(&format!("| {first} |")).unwrap();
    let rows = section[from..].lines().take_while(|line| line.starts_with('|')).skip(2);
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|it| it.trim().to_owned()).collect();
    rows.map(cells).collect()
}

fn count(cell: &str) -> f64 {
    cell.replace(',', "").parse().unwrap_or_else(|_| panic!("no number: {cell}"))
}

#[test]
fn bounds_are_those_of_the_autoscalers() {
    let files = Files::load();
    let model = Model::new(&files);
    for row in table(&files, "Bounds", "role") {
        let (least, most) = model.role(&row[0]).pods();
        assert_eq!((count(&row[1]), count(&row[2])), (least, most), "{row:?}");
    }
    for row in table(&files, "Bounds", "region") {
        let there = render(&files, &format!("deploy/kubernetes/overlays/{}", row[0]));
        for (role, cell) in [("api", &row[1]), ("worker", &row[2])] {
            let name = format!("resonant-{role}-hpa");
            let hpa = there.iter().find(|it| words(it, "metadata.name") == name).unwrap();
            assert_eq!(number(hpa, "spec.minReplicas"), count(cell), "{row:?}");
        }
    }
}

/// Cores and GiB: asked for, and at most.
fn sizes(model: &Model, role: &str) -> [f64; 4] {
    let resources = at(model.role(role).container(), "resources");
    let of = |path: &str| quantity(words(resources, path));
    let gib = f64::from(1 << 30);
    [of("requests.cpu"), of("requests.memory") / gib, of("limits.cpu"), of("limits.memory") / gib]
}

#[test]
fn processor_and_memory_add_up() {
    let files = Files::load();
    let model = Model::new(&files);
    let rows = table(&files, "Processor and memory", "role");
    let mut sums = [0.0; 3];
    for (row, role) in rows.iter().zip(ROLES) {
        assert_eq!(row[0], role);
        let told: Vec<f64> = row[1..].iter().map(|it| count(it)).collect();
        let sizes = sizes(&model, role);
        let most = model.role(role).pods().1;
        assert_eq!(told[..4], sizes, "{row:?}");
        assert_eq!(told[4..], [most, sizes[0] * most, sizes[1] * most], "{row:?}");
        for (sum, value) in sums.iter_mut().zip(&told[4..]) {
            *sum += value;
        }
    }
    let together: Vec<f64> = rows[3][5..].iter().map(|it| count(it)).collect();
    assert_eq!(together, sums);
    // Nodes of 7.5 cores, and one more in each of three zones.
    let nodes = (sums[1] / 7.5).ceil();
    let sentence = format!(
        "are {nodes}, and one more in\neach of three zones for the loss of a node: {}.",
        nodes + 3.0
    );
    assert!(files.text("docs/capacity.md").contains(&sentence), "{sentence}");
}

#[test]
fn connections_add_up() {
    let files = Files::load();
    let model = Model::new(&files);
    let rows = table(&files, "Connections", "role");
    let (mut pods, mut all) = (0.0, 0.0);
    for (row, role) in rows.iter().zip(ROLES) {
        let deployed = model.role(role);
        let (node, shard, pod) = deployed.connections();
        let most = deployed.pods().1;
        let told: Vec<f64> = row[1..].iter().map(|it| count(it)).collect();
        assert_eq!(told, [most, node, shard, pod, most * pod], "{row:?}");
        pods += most;
        all += most * pod;
    }
    assert_eq!((count(&rows[3][1]), count(&rows[3][5])), (pods, all));
    let surge = model.roles().map(|(_, it)| it.surge() * it.connections().2).fold(0.0, f64::max);
    let text = files.text("docs/capacity.md");
    for figure in [all, all + surge, 1000.0 * model.poolers().min(1.0)] {
        let figure = format!("{},{:03}", (figure / 1000.0).floor(), figure % 1000.0);
        assert!(text.contains(&figure), "{figure}");
    }
    let open = model.poolers() * model.pooler("max_db_connections");
    assert!(text.contains(&format!("three of them {open}.")), "{open}");
}

#[test]
fn limits_of_time_are_those_of_the_files() {
    let files = Files::load();
    let model = Model::new(&files);
    let rows = table(&files, "Time limits", "limit");
    let told = |limit: &str| {
        let row = rows.iter().find(|row| row[0] == limit);
        count(&row.unwrap_or_else(|| panic!("no row {limit}"))[1])
    };
    let pool = model.database.pool.clone().unwrap();
    let api = model.role("api");
    let longest = model.longest_request();
    let drain = model.health.drain_delay.as_secs_f64();
    for (limit, value) in [
        ("check of a health checker", model.health.timeout.as_secs_f64()),
        ("probe", number(api.container(), "readinessProbe.timeoutSeconds")),
        ("connection from the pool", pool.acquire_timeout.as_secs_f64()),
        ("connection from PgBouncer", model.pooler("query_wait_timeout")),
        ("statement", model.database.statement_timeout.unwrap().as_secs_f64()),
        ("longest request", longest),
        ("statement, if the server hangs", model.pooler("query_timeout")),
        ("requests under way at the end", (model.shutdown - drain) / 2.0),
        (
            "old targets of the balancer",
            number(model.resource("aws_lb_target_group.api"), "deregistration_delay"),
        ),
        ("balancers", number(model.resource("aws_lb.resonant"), "idle_timeout")),
    ] {
        assert_eq!(told(limit), value, "{limit}");
    }
    let steps: Vec<f64> =
        table(&files, "The end of a pod", "step").iter().map(|row| count(&row[1])).collect();
    let granted = number(api.pod(), "terminationGracePeriodSeconds");
    assert_eq!(steps, [api.pause(), drain, model.shutdown, granted]);
}

#[test]
fn the_three_ways_of_sizing_are_the_same_capacity() {
    let files = Files::load();
    let model = Model::new(&files);
    let rows = table(&files, "Vertical, horizontal, hybrid", "strategy");
    assert_eq!(rows.len(), 9);
    let most = |row: &[String]| count(row[2].rsplit('–').next().unwrap());
    for (index, role) in ROLES.into_iter().enumerate() {
        let [vertical, horizontal, hybrid] = [0, 3, 6].map(|from| &rows[from + index]);
        let told: Vec<f64> = horizontal[3..].iter().map(|it| count(it)).collect();
        let (node, shard, _) = model.role(role).connections();
        assert_eq!(told[..4], sizes(&model, role), "{horizontal:?}");
        assert_eq!(told[4..], [node, shard], "{horizontal:?}");
        assert_eq!(most(horizontal), model.role(role).pods().1);
        // Half as many of twice the size, also in connections.
        assert_eq!(most(hybrid) * 2.0, most(horizontal));
        for column in [3, 4, 7, 8] {
            assert_eq!(count(&hybrid[column]), 2.0 * count(&horizontal[column]), "{hybrid:?}");
        }
        assert_eq!(most(vertical), 1.0);
        for row in [vertical, horizontal, hybrid] {
            assert!(
                count(&row[3]) <= count(&row[5]) && count(&row[4]) <= count(&row[6]),
                "{row:?}"
            );
        }
    }
}
