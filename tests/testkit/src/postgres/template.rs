//! One `initdb` per process. It takes half a second; a copy of its folder takes a tenth, and a copy is also what a replica
//! can start from, because it carries the same system identifier.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::dirs::{self, ServerDir};
use crate::error::{Error, Result};
use crate::process::{Launch, run_tool};
use crate::wait::LIMIT;

type Slot = Arc<OnceCell<ServerDir>>;

/// Copies a fresh data folder of this PostgreSQL into `target`, which must not exist.
pub(super) async fn clone_into(binaries: &Path, target: &Path) -> Result<()> {
    static TEMPLATES: Mutex<Option<HashMap<PathBuf, Slot>>> = Mutex::new(None);
    let slot = {
        let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(templates.get_or_insert_default().entry(binaries.to_owned()).or_default())
    };
    let template = slot.get_or_try_init(|| initialise(binaries)).await?;
    let parent = target.parent().unwrap_or(target);
    let copy = Launch::new("cp", "cp", parent).arg("-Rp").arg(template.join("data")).arg(target);
    run_tool(copy, LIMIT).await?;
    dirs::set_mode(target, 0o700)
}

async fn initialise(binaries: &Path) -> Result<ServerDir> {
    let dir = ServerDir::create("tmpl")?;
    let data = dir.join("data");
    // Checksums make pg_rewind possible; small WAL segments keep a server at 31 MB.
    let initdb =
        Launch::new("initdb", binaries.join("initdb"), dir.path()).arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "-k",
            "--no-locale",
            "-E",
            "UTF8",
            "--wal-segsize=1",
        ]);
    run_tool(initdb, LIMIT).await?;
    if !data.join("PG_VERSION").is_file() {
        return Err(Error::io("looking for what initdb made", std::io::ErrorKind::NotFound.into()));
    }
    Ok(dir)
}
