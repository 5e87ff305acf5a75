//! What an overlay comes to: as much of kustomize as these files use, so that no tool is needed to look at the result. What it
//! does not know it refuses.

use serde_json::{Map, Value, json};

use super::Files;
use super::files::{at, list, words, yaml};

const KNOWN: [&str; 11] = [
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "configMapGenerator",
    "secretGenerator",
    "labels",
    "patches",
    "metadata",
    "generatorOptions",
];

/// The resources of a folder with a `kustomization.yaml`.
pub(super) fn render(files: &Files, folder: &str) -> Vec<Value> {
    let mut resources = Vec::new();
    apply(files, folder, &mut resources);
    resources
}

fn apply(files: &Files, folder: &str, resources: &mut Vec<Value>) {
    let path = format!("{folder}/kustomization.yaml");
    let documents = files.yaml(&path);
    let [this] = &documents[..] else { panic!("{path} is not one document") };
    let keys = this.as_object().unwrap().keys();
    let unknown: Vec<_> = keys.filter(|key| !KNOWN.contains(&key.as_str())).collect();
    assert!(unknown.is_empty(), "{path}: {unknown:?} is not known here");

    let component = words(this, "kind") == "Component";
    // A component changes what is there; anything else only what it brings itself.
    let mut own = if component { std::mem::take(resources) } else { Vec::new() };
    for resource in list(this, "resources") {
        let resource = join(folder, resource.as_str().unwrap());
        match resource.ends_with(".yaml") {
            true => own.extend(files.yaml(&resource)),
            false => apply(files, &resource, &mut own),
        }
    }
    generate(files, folder, this, &mut own);
    for component in list(this, "components") {
        apply(files, &join(folder, component.as_str().unwrap()), &mut own);
    }
    for patch in list(this, "patches") {
        patched(&path, patch, &mut own);
    }
    label(this, &mut own);
    if let Some(namespace) = this["namespace"].as_str() {
        for resource in &mut own {
            if words(resource, "kind") == "Namespace" {
                resource["metadata"]["name"] = json!(namespace);
            } else {
                resource["metadata"]["namespace"] = json!(namespace);
            }
        }
    }
    resources.append(&mut own);
}

/// Without the hash that kustomize puts behind a generated name.
fn generate(files: &Files, folder: &str, this: &Value, own: &mut Vec<Value>) {
    for (key, kind) in [("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")] {
        for generator in list(this, key) {
            let mut data = Map::new();
            for file in list(generator, "files") {
                let file = file.as_str().unwrap();
                data.insert(file.to_owned(), json!(files.text(&join(folder, file))));
            }
            for literal in list(generator, "literals") {
                let (name, value) = literal.as_str().unwrap().split_once('=').unwrap();
                data.insert(name.to_owned(), json!(value));
            }
            let name = words(generator, "name");
            let data_of = if kind == "Secret" { "stringData" } else { "data" };
            let made = json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name }, data_of: data });
            let old = own
                .iter_mut()
                .find(|it| words(it, "kind") == kind && words(it, "metadata.name") == name);
            match (generator["behavior"].as_str(), old) {
                (Some("replace"), Some(old)) => *old = made,
                (None, None) => own.push(made),
                (behavior, _) => panic!("{folder}: {name}: {behavior:?}"),
            }
        }
    }
}

fn patched(path: &str, patch: &Value, own: &mut [Value]) {
    let (kind, name) = (words(patch, "target.kind"), words(patch, "target.name"));
    let matches = |it: &&mut Value| words(it, "kind") == kind && words(it, "metadata.name") == name;
    let Some(target) = own.iter_mut().find(matches) else {
        panic!("{path} patches {kind} {name}, which is not there")
    };
    for operation in yaml(words(patch, "patch")).unwrap().remove(0).as_array().unwrap() {
        let (op, pointer) = (words(operation, "op"), words(operation, "path"));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let Some(parent) = target.pointer_mut(parent) else {
            panic!("{path}: {kind} {name} has no {pointer}")
        };
        let there = !matches!(at(parent, key), Value::Null);
        assert!(op == "add" || there, "{path}: {kind} {name} has no {pointer}");
        let Some(parent) = parent.as_object_mut() else { panic!("{path}: {pointer}") };
        match op {
            "remove" => parent.remove(key),
            "add" | "replace" => parent.insert(key.to_owned(), operation["value"].clone()),
            op => panic!("{path}: {op} is not known here"),
        };
    }
}

fn label(this: &Value, own: &mut [Value]) {
    for labels in list(this, "labels") {
        for (name, value) in labels["pairs"].as_object().unwrap() {
            for resource in own.iter_mut() {
                resource["metadata"]["labels"][name] = value.clone();
                let kind = words(resource, "kind");
                if labels["includeTemplates"] == json!(true)
                    && ["Deployment", "StatefulSet"].contains(&kind)
                {
                    resource["spec"]["template"]["metadata"]["labels"][name] = value.clone();
                }
            }
        }
    }
}

fn join(folder: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in relative.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The folders that are applied.
pub(super) const OVERLAYS: [&str; 5] = [
    "deploy/kubernetes/overlays/production",
    "deploy/kubernetes/overlays/us-east-1",
    "deploy/kubernetes/overlays/us-west-2",
    "deploy/kubernetes/overlays/eu-west-1",
    "deploy/kubernetes/overlays/local",
];

#[test]
fn every_overlay_comes_to_something() {
    let files = Files::load();
    for overlay in OVERLAYS {
        let kinds: Vec<String> =
            render(&files, overlay).iter().map(|it| words(it, "kind").to_owned()).collect();
        assert_eq!(kinds.iter().filter(|kind| *kind == "Namespace").count(), 1, "{overlay}");
        assert!(kinds.iter().filter(|kind| *kind == "Deployment").count() >= 3, "{overlay}");
    }
    // The workers by KEDA, which no overlay chooses.
    let mut own = render(&files, "deploy/kubernetes/base");
    apply(&files, "deploy/kubernetes/keda", &mut own);
    let worker = own.iter().find(|it| {
        words(it, "kind") == "Deployment" && words(it, "metadata.name") == "resonant-worker"
    });
    assert!(worker.unwrap()["spec"]["replicas"].is_null());
}

/// The reader above against kustomize itself.
#[test]
#[ignore = "needs kubectl: cargo test -p resonant-tests --test it -- --ignored kustomize"]
fn kustomize_comes_to_the_same() {
    let files = Files::load();
    for overlay in OVERLAYS {
        let folder = crate::telemetry::repository().join(overlay);
        let ran = std::process::Command::new("kubectl").arg("kustomize").arg(folder).output();
        let output = ran.expect("kubectl is here");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut theirs = yaml(&text).unwrap();
        let mut ours = render(&files, overlay);
        for resource in theirs.iter_mut().chain(&mut ours) {
            plain(resource);
        }
        assert_eq!(theirs.len(), ours.len(), "{overlay}");
        for resource in theirs {
            assert!(ours.contains(&resource), "{overlay}: {resource:#}");
        }
    }
}

/// Without what is generated: the hashes behind names, and secrets in base64.
fn plain(value: &mut Value) {
    let secret = value["kind"] == "Secret";
    if let Value::Object(entries) = value {
        if secret {
            for key in ["type", "data", "stringData"] {
                entries.remove(key);
            }
        }
        entries.values_mut().for_each(plain);
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(plain);
    } else if let Value::String(text) = value {
        for name in [
            "resonant-settings",
            "pgbouncer",
            "postgres-first",
            "db-credentials",
            "cache-credentials",
            "queue-credentials",
            "api-tokens",
        ] {
            let hash = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            if hash.is_some_and(|hash| hash.len() == 10 && !hash.contains('-')) {
                name.clone_into(text);
            }
        }
    }
}
