//! `--check` and `--help`, as somebody who deploys uses them.

use std::path::Path;

use crate::process::service;

async fn run(folder: &Path, arguments: &[&str], vars: &[(&str, &str)]) -> (bool, String) {
    let mut command = service(folder);
    let output = command.args(arguments).envs(vars.iter().copied()).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn check_passes_both_files_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (fine, said) = run(folder.path(), &["--check"], &[]).await;
    assert!(fine && said.starts_with("resonant.toml is in order: "), "{said}");
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster.toml");
    let token = ("RESONANT__HTTP__TOKENS__OPERATOR", "a long secret of ours");
    let url = ("DATABASE_URL", "postgresql://app:hunter2@primary:5432/resonant");
    let (fine, said) =
        run(folder.path(), &["api", "--check", "--config", cluster], &[token, url]).await;
    assert!(fine && said.contains("in order"), "{said}");
    assert!(!said.contains("hunter2"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn check_refuses_what_would_not_start_and_help_names_the_roles() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster.toml");
    let wrong = [
        ("RESONANT__DATABASE__POOL__MAX_SIZE", "hunter2"),
        ("RESONANT__BROKER__LEASES", "nowhere"),
    ];
    let (fine, said) = run(folder.path(), &["--check", "--config", cluster], &wrong).await;
    assert!(!fine && !said.contains("hunter2"), "{said}");
    assert!(said.contains("3 mistakes"), "{said}");
    for key in ["http: tokens must", "database.pool.max_size", "broker.leases"] {
        assert!(said.contains(key), "{key} is not in {said}");
    }
    let (fine, said) = run(folder.path(), &["--help"], &[]).await;
    assert!(fine, "{said}");
    for word in ["api", "worker", "session", "--check", "--config", "--listen"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
}
