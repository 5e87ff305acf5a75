//! What is wrong with a file is said all at once, without connecting to anything and without a secret.

use std::io::ErrorKind;
use std::net::TcpListener;

use resonant_sdk::app::{Place, Settings};

use super::file;

const WRONG: &str = r#"
[servce]
name = "x"

[http]
listen = "8000"
tokens = { ada = "hunter2" }

[http.api]
max_body = "much"

[database]
primry = "postgresql://app:hunter2@primary/app"
primary = "postgresql://app:hunter2@primary/app"
read_strategy = "hunter2"
statement_timeout = "hunter2"

[database.pool]
min_size = 20
max_size = 10

[sharded_database]
shard_key = "org_id"
tables = { agents = "hunter2" }
[sharded_database.shards]
shard_0 = "nosuch://app:hunter2@shard0/app"

[cache]
nodes = ["http://app:hunter2@cache-1"]
command_timeout = 0
max_batch = 0

[broker]
urls = ["kafka://app:hunter2@broker"]

[queues.session-tasks]
partitions = 0
prefetch = 1

[queues.other]
poisson = "park"

[batches.finished]
max_batch_size = 0
max_in_flight = 0

[health]
rise = -1
jitter = 0.9

[regions.primary]
region = "us-east-1"
database = "primary"
url = "postgresql://app:hunter2@east/app"

[regions.secondary]
region = "us-west-2"
url = "postgresql://app:hunter2@west/app"

[failover]
failover_threshold = 0

[scaling.session-workers]
queue = "none"
policy = { hpa = { min_replicas = 3, max_replicas = 2 } }
"#;

#[test]
fn every_mistake_of_a_file_is_in_one_list_with_its_line_and_no_secret() {
    let mistakes = file(WRONG).read().unwrap_err();
    let shown = format!("{mistakes}\n{mistakes:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let expected = [
        "resonant.toml:2: servce: there is no such section; did you mean service?",
        "resonant.toml:6: http.listen: listen must be an address and a port, such as 0.0.0.0:8000",
        "resonant.toml:7: http.tokens: tokens: a token must have at least 16 printable ASCII characters and none of space around it",
        "resonant.toml:10: http.api.max_body: expected usize, found text",
        "resonant.toml:13: database.primry: there is no such setting; did you mean primary?",
        "resonant.toml:15: database.read_strategy: expected one of least_in_flight, lowest_lag, peak_ewma, primary, prefer_primary, random, round_robin, zone_first",
        "resonant.toml:16: database.statement_timeout: this is no duration: write seconds (300) or text with a unit (\"300s\", \"100ms\", \"5min\")",
        "resonant.toml:19: database.pool.min_size: min_size (20) must not exceed max_size (10): lower the one or raise the other",
        "resonant.toml:24: sharded_database.tables.agents: expected one of the forms that the documentation of this setting shows",
        "resonant.toml:25: sharded_database.shards: shards: no backend for nosuch: URLs; there are sqlite: and postgresql:, or give a backend(…)",
        "resonant.toml:29: cache.nodes: nodes: a node must be a URL such as redis://cache-1:6379, or memory:",
        "resonant.toml:30: cache.command_timeout: command_timeout must be above 0",
        "resonant.toml:31: cache.max_batch: max_batch must be above 0",
        "resonant.toml:34: broker.urls: urls must be memory:, sqlite:path, a postgresql:// URL, database, or amqp:// URLs",
        "resonant.toml:37: queues.session-tasks.partitions: partitions must be 1 to 4096",
        "resonant.toml:38: queues.session-tasks.prefetch: prefetch must be at least 16",
        "resonant.toml:41: queues.other.poisson: there is no such setting; did you mean poison?",
        "resonant.toml:44: batches.finished.max_batch_size: max_batch_size must be at least 1",
        "resonant.toml:45: batches.finished.max_in_flight: max_in_flight must be between 1 and 4,096",
        "resonant.toml:48: health.rise: expected u32",
        "resonant.toml:49: health.jitter: jitter must lie between 0 and 0.5",
        "resonant.toml:56: regions.secondary.database: this setting is required",
        "resonant.toml:61: failover.failover_threshold: failover_threshold must be at least 1",
        "resonant.toml:64: scaling.session-workers.queue: this must name one of [queues]",
        "resonant.toml:65: scaling.session-workers.policy.hpa.min_replicas: min_replicas (3) must not be above max_replicas (2)",
    ];
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expected, "\n{mistakes}");
}

#[test]
fn the_environment_and_the_command_line_are_named_where_they_are_wrong() {
    let vars = [
        ("RESONANT__DATABASE__POOL__MAX_SIZE", "hunter2"),
        ("RESONANT__HEALTH__INTERVALL", "5s"),
        ("RESONANT__QUEUE__X", "1"),
        ("UNRELATED", "hunter2"),
    ];
    let mistakes = file("[database]\nprimary = 'sqlite::memory:'")
        .vars(vars.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .set("http.listen", "hunter2")
        .read()
        .unwrap_err();
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "RESONANT__QUEUE__X: queue: there is no such section; did you mean queues?",
            "command line: http.listen: listen must be an address and a port, such as 0.0.0.0:8000",
            "RESONANT__HEALTH__INTERVALL: health.intervall: there is no such setting; did you mean interval?",
            "RESONANT__DATABASE__POOL__MAX_SIZE: database.pool.max_size: expected a whole number from 0, found text",
        ]
    );
    assert_eq!(
        mistakes.iter().next().map(|it| it.place.clone()),
        Some(Place::Variable("RESONANT__QUEUE__X".into()))
    );
}

#[test]
fn a_file_that_is_not_there_or_no_toml_says_so() {
    let missing = Settings::file("/nowhere/resonant.toml").vars([]).read().unwrap_err();
    assert!(missing.to_string().contains("/nowhere/resonant.toml: the file cannot be read"));
    let broken = file("[http\nlisten = \"hunter2\n[health]\nrise = 2").read().unwrap_err();
    assert!(broken.to_string().contains("resonant.toml:1: this is no TOML"), "{broken}");
    assert!(!broken.to_string().contains("hunter2"), "{broken}");
}

#[test]
fn a_check_connects_to_nothing_and_creates_nothing() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let at = server.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = folder.path().join("shard.db");
    let settings = file(&format!(
        "[http]
         without_tokens = true
         [database]
         primary = 'postgresql://app@{at}/app'
         replicas = ['postgresql://app@{at}/app']
         [sharded_database]
         shard_key = 'org_id'
         tables = {{ agents = 'text' }}
         [sharded_database.shards]
         shard_0 = 'sqlite:{}'
         [cache]
         nodes = ['redis://{at}']
         cluster_mode = false
         [broker]
         urls = ['amqp://{at}']
         leases = 'database'
         [queues.session-tasks]
         partition_key = 'agent_id'
         [regions.primary]
         region = 'us-east-1'
         database = 'primary'
         url = 'postgresql://app@{at}/app'
         [regions.secondary]
         region = 'us-west-2'
         database = 'replica'
         url = 'postgresql://app@{at}/app'
         [scaling.session-workers]
         queue = 'session-tasks'",
        sqlite.display()
    ))
    .read()
    .unwrap();
    assert_eq!(settings.sections().len(), 8);
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(!sqlite.exists());
}

#[test]
fn file_environment_and_command_line_go_over_each_other_in_this_order() {
    let text = "[database]\nprimary = 'sqlite:of-the-file.db'\n[health]\ninterval = '7s'";
    let read = |vars: &[(&str, &str)], set: Option<&str>| {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut reader = file(text).vars(vars);
        if let Some(value) = set {
            reader = reader.set("database.primary", value);
        }
        let settings = reader.read().unwrap();
        assert_eq!(settings.health.interval.as_secs(), 7);
        settings.database.unwrap().primary
    };
    let url = ("DATABASE_URL", "sqlite:of-the-guide.db");
    let own = ("RESONANT__DATABASE__PRIMARY", "sqlite:of-the-environment.db");
    assert_eq!(read(&[], None), "sqlite:of-the-file.db");
    assert_eq!(read(&[url], None), url.1);
    assert_eq!(read(&[url, own], None), own.1);
    assert_eq!(read(&[url, own], Some("sqlite:of-the-line.db")), "sqlite:of-the-line.db");
}

/// A URL that lost its host, or whose password has a question mark, must not end up in a log.
#[test]
fn half_a_url_is_refused_without_the_password_that_stands_in_it() {
    let lost = "postgresql://app:hunter2/app";
    let asked = "postgresql://app:12?port=hunter2@h/db";
    for url in [lost, asked] {
        let files = [
            format!("[database]\nprimary = '{url}'"),
            format!("[database]\nprimary = 'postgresql://h/db'\nreplicas = ['{url}']"),
            format!(
                "[sharded_database]\nshard_key = 'org_id'\ntables = {{ agents = 'text' }}\n[sharded_database.shards]\nshard_0 = '{url}'"
            ),
            format!("[broker]\nurls = ['{url}']"),
            format!("[broker]\nurls = ['amqp://h']\nleases = '{url}'"),
        ];
        for text in files {
            let mistakes = file(&text).read().unwrap_err();
            let shown = format!("{mistakes}\n{mistakes:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(mistakes.iter().len(), 1, "{shown}");
        }
    }
    let mistakes = file("[broker]\nurls = ['amqp://app:hunter2']\nleases = 'memory:'").read();
    let shown = mistakes.unwrap_err().to_string();
    assert!(shown.contains("broker.urls: urls: address 1 is not of the form"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_secret_that_is_missing_does_not_turn_a_broker_into_memory() {
    let text = "
[broker]
urls = ['amqp://broker']
leases = 'database'
[database]
primary = 'postgresql://primary/app'
[cache]
nodes = ['redis://cache']
[queues.tasks]";
    let vars = [("RESONANT__BROKER__URLS", ""), ("RESONANT__CACHE__NODES", " ")];
    let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mistakes = file(text).vars(vars).read().unwrap_err().to_string();
    for variable in ["RESONANT__BROKER__URLS: broker.urls", "RESONANT__CACHE__NODES: cache.nodes"] {
        assert!(mistakes.contains(&format!("{variable}: this variable is empty")), "{mistakes}");
    }
    let without = text.replace("urls = ['amqp://broker']\n", "");
    let mistakes = file(&without).read().unwrap_err().to_string();
    let expected =
        "resonant.toml:3: broker.leases: leases is for RabbitMQ, and urls names no amqp:// URL";
    assert!(mistakes.contains(expected), "{mistakes}");
    let mistakes = file("[broker]\ncreate_tables = true").read().unwrap_err().to_string();
    assert!(mistakes.contains("resonant.toml:2: broker.create_tables: create_tables is for"));
}

#[test]
fn what_only_the_whole_file_shows_is_said_where_it_stands() {
    let text = "
[database]
primary = 'postgresql://app@east/app'
replicas = ['postgresql://app@west/app', 'postgresql://app@pooler/app']
[regions.primary]
region = 'us-east-1'
database = 'primary'
url = 'postgresql://other@east/app'
[regions.secondary]
region = 'us-west-2'
database = 'replica'
url = 'postgresql://west/app'
[queues.'a:b']
[queues.a_b]
[queues.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]
[batches.'of all']
[scaling.one]
queue = 'a_b'
[scaling.other]
queue = 'a_b'
";
    let mistakes = file(text).read().unwrap_err();
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let name =
        "a name must be 1 to 58 letters, digits, '_', '.' or '-': its health check has it, too";
    let long = "a".repeat(59);
    assert_eq!(
        lines,
        [
            "resonant.toml:4: database.replicas.1: with [regions] this must be the url of one of them, with host, port and database written alike: the database follows the regions, and would leave this node".to_owned(),
            "resonant.toml:14: queues.a_b: its health check would have the same name as that of a:b".to_owned(),
            format!("resonant.toml:15: queues.{long}: {name}"),
            format!("resonant.toml:16: batches.of all: {name}"),
            "resonant.toml:19: scaling.other: scaling.one scales the same workers: give one scaler all the rules".to_owned(),
        ],
        "\n{mistakes}"
    );
}
