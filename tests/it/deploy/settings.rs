//! The settings files that are mounted, and what goes over them from the environment.

use resonant_sdk::app::Settings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Files;
use super::files::{at, list, words};
use super::kustomize::render;
use super::model::ROLES;

pub(super) const DEPLOYED: &str = "deploy/kubernetes/base/resonant.toml";
const LOCAL: &str = "deploy/kubernetes/overlays/local/resonant.toml";

pub(super) fn section<T: DeserializeOwned>(settings: &toml::Table, name: &str) -> T {
    let value = settings.get(name).unwrap_or_else(|| panic!("there is no [{name}]")).clone();
    value.try_into().unwrap_or_else(|error| panic!("[{name}]: {error}"))
}

/// What a Deployment gives its container, with stand-ins for what Secrets hold.
fn variables(container: &Value) -> Vec<(String, String)> {
    let pooled = |name: &str| format!("postgresql://resonant:of-a-secret@pgbouncer:6432/{name}");
    let of = |variable: &Value| match words(variable, "valueFrom.secretKeyRef.key") {
        "" => words(variable, "value").to_owned(),
        "url" => pooled("resonant"),
        "replicas" => [1, 2, 3].map(|it| pooled(&format!("resonant_replica{it}"))).join(","),
        "nodes" => "redis://:of-a-secret@resonant-redis-leader:6379".to_owned(),
        "urls" => "amqp://resonant:of-a-secret@resonant-rabbitmq:5672".to_owned(),
        "operator" => "a token of the operator's".to_owned(),
        shard => pooled(&format!("resonant_{}", shard.replace('_', ""))),
    };
    let variables = list(container, "env").iter();
    variables.map(|it| (words(it, "name").to_owned(), of(it))).collect()
}

/// Read as the service reads them, with what each role is given over the file.
#[test]
fn every_role_takes_its_settings() {
    let files = Files::load();
    for (overlay, path) in [("production", DEPLOYED), ("local", LOCAL)] {
        let resources = render(&files, &format!("deploy/kubernetes/overlays/{overlay}"));
        for role in ROLES {
            let name = format!("resonant-{role}");
            let deployment = resources
                .iter()
                .find(|it| words(it, "kind") == "Deployment" && words(it, "metadata.name") == name);
            let vars = variables(at(deployment.unwrap(), "spec.template.spec.containers.0"));
            assert!(vars.len() >= 9, "{vars:?}");
            let told = vars.iter().find(|it| it.0 == "RESONANT__DATABASE__POOL__MAX_SIZE");
            let told: u32 = told.map_or(8, |it| it.1.parse().unwrap());
            let read = Settings::text(path, files.text(path)).vars(vars).read();
            let settings = read.unwrap_or_else(|mistakes| panic!("{role}: {mistakes}"));
            let database = settings.database.unwrap();
            assert_eq!(database.pool.unwrap().max_size, told, "{overlay} {role}");
            assert!(database.primary.contains("of-a-secret"), "{overlay} {role}");
            assert_eq!(settings.sharded_database.unwrap().shards.len(), 4);
            assert_eq!(settings.http.unwrap().listen, "0.0.0.0:8000");
            assert_eq!(settings.queues["session-tasks"].partitions, 64);
        }
        // Without the Secrets nobody could look closely, which is a mistake.
        assert!(Settings::text(path, files.text(path)).vars([]).read().is_err());
    }
}

/// What the image builds, and what it is told to be, are there.
#[test]
fn the_image_is_of_the_reference_service() {
    let root = crate::telemetry::repository();
    let read =
        |path: &str| std::fs::read_to_string(root.join("examples/service").join(path)).unwrap();
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let package = manifest["package"]["name"].as_str().unwrap();
    let binary = manifest["bin"][0]["name"].as_str().unwrap();
    let files = Files::load();
    let docker = files.text("deploy/Dockerfile");
    assert!(docker.contains(&format!("-p {package} --bin {binary} ")), "{package} {binary}");
    assert!(docker.contains(&format!("target/release/{binary} ")), "{binary}");
    let main = read("src/main.rs");
    for role in ["Api,", "Worker,", "Session,"] {
        assert!(main.contains(role), "{role}");
    }
    assert!(read("src/session.rs").contains("\"/ws\""));
}

/// What is mounted everywhere must hold nothing that is to be kept quiet.
#[test]
fn no_file_but_the_local_one_holds_a_password() {
    let files = Files::load();
    for path in files.paths().filter(|path| !path.contains("/local/")) {
        for (at, _) in files.text(path).match_indices("://") {
            let rest = &files.text(path)[at + 3..];
            let end = rest.find(|c: char| c.is_whitespace() || "\",;/>)`'".contains(c));
            let authority = &rest[..end.unwrap_or(rest.len())];
            if let Some((login, _)) = authority.split_once('@') {
                let password = login.split_once(':').map_or("", |it| it.1);
                let by_reference = password.is_empty() || password.starts_with(['$', '<', '…']);
                assert!(by_reference, "{path}: {authority}");
            }
        }
    }
}
