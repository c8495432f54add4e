//! The disk under the file of one process is full for a while: filled to its last byte by a file of ours, which is removed
//! again. Touches no disk but a small one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::statvfs::statvfs;
use rand::RngExt;
use sluice_judge::record::FaultRecord;
use sluice_launcher::probe;
use tokio::time::{Instant, sleep};

use super::FaultInjector;
use crate::place::{Place, Role};
use crate::target::Target;

/// The largest file system that is filled: others may live on a larger one.
const SIZE_MAX: u64 = 1 << 30;
/// How long there is no space: gateways try what was not stored for ten seconds, and then have clients send it again.
const FULL_MS: std::ops::Range<u64> = 2_000..13_000;
/// The load needs what is left within this, and then nothing more is stored.
const FULL_WITHIN: Duration = Duration::from_secs(30);
/// What was refused is stored within this once there is space.
const FREE_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks, and one look.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl FaultInjector<'_> {
    /// Hit is it once the process says that it is not ready for it.
    pub(super) async fn full_disk(&mut self) -> anyhow::Result<FaultRecord> {
        let place = Place::only(Role::Dev);
        let Target::Given(given) = self.target else { return Ok(self.begin(place)) };
        let (folder, page) = (given.store_folder().context("its store is no file")?, given.page(place)?);
        let mut fault = self.begin(place);
        let filler = Filler::fill(&folder)?;
        let refused = readiness(&page, false, FULL_WITHIN).await?;
        fault.hit = true;
        let pause = self.rng.random_range(FULL_MS);
        // Again: what was given back meanwhile, as by a checkpoint, is no space for anybody either.
        filler.top_up()?;
        sleep(Duration::from_millis(pause)).await;
        drop(filler);
        readiness(&page, true, FREE_WITHIN).await?;
        fault.note = format!("full for {pause} ms: {refused}");
        self.heal(&mut fault);
        Ok(fault)
    }
}

/// Waits until the process is ready, or is not; what it says.
async fn readiness(page: &str, wanted: bool, within: Duration) -> anyhow::Result<String> {
    let until = Instant::now() + within;
    loop {
        let answer = probe::get(&format!("{page}/readyz"), LOOK.1).await?;
        if (answer.status == 200) == wanted {
            return Ok(answer.body.trim().to_owned());
        }
        if Instant::now() >= until {
            let state = if wanted { "is still not ready with space" } else { "is still ready without space" };
            bail!("the process {state} after {within:?}: {}", answer.body.trim());
        }
        sleep(LOOK.0).await;
    }
}

/// A file that takes all the space there is; gone when dropped.
struct Filler {
    path: PathBuf,
    file: File,
}

impl Filler {
    fn fill(folder: &Path) -> anyhow::Result<Self> {
        let system = statvfs(folder).with_context(|| folder.display().to_string())?;
        let size = system.blocks() * system.fragment_size();
        ensure!(
            size <= SIZE_MAX,
            "{} is on a file system of {} MiB, which is not filled: give it a small one of its own, as by `mount -t tmpfs -o \
             size=128m none DIR`",
            folder.display(),
            size >> 20
        );
        let path = folder.join("drill-filler");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let filler = Self { file: file.with_context(|| path.display().to_string())?, path };
        filler.top_up()?;
        Ok(filler)
    }

    /// To the last byte: in large pieces, and then in smaller ones.
    fn top_up(&self) -> anyhow::Result<()> {
        for piece in [1 << 16, 1 << 12, 1] {
            let piece = vec![0; piece];
            loop {
                match (&self.file).write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).with_context(|| self.path.display().to_string()),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok(); // the folder may be gone with its process
    }
}
