//! Other versions of the engines: a root laid out like `/`, or with a folder per engine.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::{env, fs};

use resonant_testkit::{Engine, ErrorKind, PostgresCluster, RabbitMq, Redis, Result, Servers};

use crate::support::{failure, passes_alone};

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

#[tokio::test]
async fn the_environment_names_a_root() {
    let empty = tempfile::tempdir().expect("a folder");
    let root = [("RESONANT_SERVERS_ROOT", empty.path().as_os_str())];
    passes_alone("servers::starts_a_server_from_an_empty_root", &root).await;
}

#[tokio::test]
#[ignore = "run by the test above, which names an empty folder as the root"]
async fn starts_a_server_from_an_empty_root() {
    let root = env::var_os("RESONANT_SERVERS_ROOT").expect("run by the test above");
    assert_eq!(Servers::from_env(), Servers::at(root));
    failure(Redis::start().await, ErrorKind::MissingBinary);
    failure(PostgresCluster::builder().start().await, ErrorKind::MissingBinary);
}

/// The account a process runs as.
fn account_of(pid: Option<u32>) -> u32 {
    let status = fs::metadata(format!("/proc/{}", pid.expect("it runs"))).expect("/proc");
    status.uid()
}

/// PostgreSQL and PgBouncer would refuse to run as root; the others would not.
#[tokio::test]
async fn servers_never_run_as_root() -> Result<()> {
    let (redis, pg) = (Redis::start().await?, PostgresCluster::builder().start().await?);
    let mine = account_of(Some(std::process::id()));
    for pid in [redis.pid(), pg.primary().pid()] {
        let theirs = account_of(pid);
        assert!(theirs != 0 && (mine == 0 || theirs == mine), "uid {theirs} by uid {mine}");
    }
    Ok(())
}
