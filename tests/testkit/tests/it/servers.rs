//! Other versions of the engines: a root laid out like `/`, or with a folder per engine.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::{env, fs};

use resonant_testkit::{Engine, ErrorKind, PostgresCluster, RabbitMq, Redis, Result, Servers};

use crate::support::failure;

/// The folder of an engine's programs on this system, linked to a place below a root.
fn link(engine: Engine, place: &Path) {
    let folder = Servers::system().find(engine).expect("installed");
    fs::create_dir_all(place.parent().expect("a parent")).expect("folders");
    symlink(folder, place).expect("a link");
}

#[tokio::test]
async fn a_root_brings_its_own_engines_and_what_it_lacks_is_an_error() -> Result<()> {
    let root = tempfile::tempdir().expect("a folder");
    // The servers run as somebody else, who must get in.
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    link(Engine::PostgreSql, &root.path().join("usr/lib/postgresql/15/bin"));
    link(Engine::Redis, &root.path().join("redis/bin"));
    let servers = Servers::at(root.path());

    let pg = PostgresCluster::builder().replicas(1).servers(servers.clone()).start().await?;
    assert!(pg.primary().binaries().starts_with(root.path()));
    pg.primary().kill().await?;
    pg.replica(0).promote().await?;
    pg.rejoin_by_rewind(0).await?;
    Redis::builder().servers(servers.clone()).start().await?.command(["PING"]).await?;

    let error =
        failure(RabbitMq::builder().servers(servers).start().await, ErrorKind::MissingBinary);
    let text = error.to_string();
    assert!(
        text.starts_with("`rabbitmq-server` was not found below ")
            && text.contains("apt-get install"),
        "{text}"
    );
    Ok(())
}

#[test]
fn the_environment_names_a_root() {
    // Whatever this process was started with, the rule is the same.
    let expected = match env::var_os("RESONANT_SERVERS_ROOT") {
        Some(root) if !root.is_empty() => Servers::at(root),
        _ => Servers::system(),
    };
    assert_eq!(Servers::from_env(), expected);
}
