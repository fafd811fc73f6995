//! Handing a staged program to the upgrader.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use instar_upgrader::{Client, Layout, Release, Status, Swap};

use super::stage::StagedProgram;
use super::{Known, lock};
use crate::node::Shared;
use crate::supervised;

/// The protocol number that the programs of this version speak.
const PROTOCOL: u32 = 1;

/// Asks the upgrader for the swap. This process is stopped by it soon after.
pub(super) async fn begin(node: &Shared, known: &Known, generation: u64, release: &str) {
    let Some(program) = lock(known)
        .staged
        .get(release)
        .and_then(|s| s.program.clone())
    else {
        return;
    };
    let Some(status) = supervised::status().await else {
        return;
    };
    let home = node.home.path().to_owned();
    let name = release.to_owned();
    let asked =
        tokio::task::spawn_blocking(move || ask(&home, &program, &status, generation, &name)).await;
    match asked {
        Ok(Ok(())) => {
            tracing::info!(release, generation, "the upgrader swaps this program");
            lock(known).swapping = Some(generation);
        }
        Ok(Err(e)) => tracing::warn!(
            release,
            generation,
            error = e,
            "the upgrader refuses the swap"
        ),
        Err(e) => {
            tracing::warn!(release, generation, error = %e, "the swap could not be asked for")
        }
    }
}

fn ask(
    home: &Path,
    program: &StagedProgram,
    status: &Status,
    generation: u64,
    release: &str,
) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let at = Layout::new(home).executable(release, &status.exe);
    let folder = at.parent().ok_or("a release has a folder")?;
    fs::create_dir_all(folder).map_err(|e| text(&e))?;
    // Written beside and renamed, so that the upgrader never sees half a program; it checks the bytes itself.
    let partial = at.with_extension("partial");
    fs::copy(&program.path, &partial).map_err(|e| text(&e))?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)).map_err(|e| text(&e))?;
    fs::File::open(&partial)
        .and_then(|f| f.sync_all())
        .map_err(|e| text(&e))?;
    fs::rename(&partial, &at).map_err(|e| text(&e))?;
    let target = Release {
        file: program.file.cid.to_string(),
        protocol: PROTOCOL,
        release: release.to_owned(),
        sha256: program.file.sha256,
    };
    let mut client = Client::from_env().map_err(|e| text(&e))?;
    client
        .swap(&Swap { generation, target })
        .map_err(|e| text(&e))
}
