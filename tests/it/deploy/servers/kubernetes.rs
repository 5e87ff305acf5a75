//! Kubernetes' own schemas, strictly, of three versions. `scripts/setup` installs the validator.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, iter};

use crate::deploy::Files;
use crate::deploy::files::words;
use crate::deploy::kustomize::{OVERLAYS, render};
use crate::deploy::schema::is_custom;

const VERSIONS: [&str; 3] = ["1.35", "1.36", "1.37"];

fn validator() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")));
    let folder = cache.unwrap_or_default().join("resonant/kubernetes-validate-1.37.0");
    folder.join("bin/kubernetes-validate")
}

/// What it says of files, without what is in order.
fn complaints(files: &[PathBuf], version: &str) -> Vec<String> {
    let ran = Command::new(validator()).args(["--strict", "-k", version]).args(files).output();
    let output = ran.expect("kubernetes-validate is where scripts/setup installs it");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let passed = text.lines().filter(|line| line.starts_with("INFO ")).count();
    assert!(passed > 0, "nothing was looked at: {text}");
    // A kind without a schema is but a warning there; here it is a mistake.
    text.lines().filter(|line| !line.starts_with("INFO ")).map(ToOwned::to_owned).collect()
}

#[test]
fn kubernetes_takes_every_overlay() {
    let files = Files::load();
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for overlay in OVERLAYS {
        let own = render(&files, overlay).into_iter().filter(|it| !is_custom(it));
        let documents: Vec<String> = own.map(|it| it.to_string()).collect();
        let path = folder.path().join(format!("{}.yaml", overlay.rsplit('/').next().unwrap()));
        fs::write(&path, documents.join("\n---\n")).unwrap();
        paths.push(path);
    }
    // What no overlay has: the ingress.
    let ingress = folder.path().join("ingress.yaml");
    fs::write(&ingress, files.text("deploy/kubernetes/ingress/ingress.yaml")).unwrap();
    paths.push(ingress);
    for version in VERSIONS {
        assert_eq!(complaints(&paths, version), Vec::<String>::new(), "{version}");
    }
}

/// Typing mistakes, each in a file of its own.
const TYPOS: [(&str, &str, &str); 20] = [
    ("api", "replicas: 3", "replica: 3"),
    ("api", "replicas: 3", "replicas: \"3\""),
    ("api", "matchLabels:", "matchLabel:"),
    ("api", "containerPort: 8000", "containerport: 8000"),
    ("api", "periodSeconds: 2", "periodSeconds: 2s"),
    ("api", "failureThreshold: 60", "failureTreshold: 60"),
    ("api", "httpGet:", "httpget:"),
    ("api", "secretKeyRef:", "secretRef:"),
    ("api", "topologySpreadConstraints:", "topologySpread:"),
    ("api", "terminationGracePeriodSeconds: 120", "terminationGracePeriod: 120"),
    ("api", "readOnlyRootFilesystem: true", "readOnlyRootFileSystem: true"),
    ("api", "drop: [\"ALL\"]", "drop: ALL"),
    ("api", "seconds: 5", "second: 5"),
    ("worker", "clusterIP: None", "clusterIp: None"),
    ("worker", "targetPort: http", "targetport: http"),
    ("worker", "maxSurge: 25%", "maxSurge: [25]"),
    ("session", "unhealthyPodEvictionPolicy:", "unhealthyPodEviction:"),
    ("session", "runAsUser: 65532", "runAsUser: nobody"),
    ("session", "mountPath:", "path:"),
    (
        "serviceaccount",
        "automountServiceAccountToken: false",
        "automountServiceAccountToken: \"no\"",
    ),
];

#[test]
fn twenty_typing_mistakes_are_noticed() {
    let files = Files::load();
    let folder = tempfile::tempdir().unwrap();
    let seeded = TYPOS.iter().enumerate().map(|(index, (name, from, to))| {
        let path = format!("deploy/kubernetes/base/{name}.yaml");
        let text = files.with(&path, from, to).text(&path).to_owned();
        let path = folder.path().join(format!("{index:02}.yaml"));
        fs::write(&path, text).unwrap();
        path
    });
    // One in order, so that something passes.
    let whole = folder.path().join("whole.yaml");
    fs::write(&whole, files.text("deploy/kubernetes/base/api.yaml")).unwrap();
    let paths: Vec<_> = seeded.chain(iter::once(whole)).collect();
    let complaints = complaints(&paths, VERSIONS[2]).join("\n");
    for (path, typo) in paths.iter().zip(TYPOS) {
        assert!(complaints.contains(&path.display().to_string()), "{typo:?}: {complaints}");
    }
    assert!(!complaints.contains("whole.yaml"), "{complaints}");
    assert_eq!(words(&files.yaml("deploy/kubernetes/base/api.yaml")[0], "kind"), "Deployment");
}
