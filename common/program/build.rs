//! Finds the commit that a program is built from: `SLUICE_COMMIT` where somebody says it (images are built without
//! `.git`), else what the repository says. Debug builds do not ask: each commit would compile everything again.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SLUICE_COMMIT");
    let told = std::env::var("SLUICE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = told.or_else(|| if is_release { of_repository() } else { None });
    println!("cargo:rustc-env=SLUICE_BUILD_COMMIT={}", commit.unwrap_or_default());
    println!("cargo:rustc-env=SLUICE_BUILD_KIND={}", if is_release { "release" } else { "debug" });
}

/// `None` where there is no git or the sources lie in somebody else's repository.
fn of_repository() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok()?;
    let top = PathBuf::from(git(&root, &["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != root {
        return None;
    }
    for name in ["HEAD", "logs/HEAD"] {
        let file = root.join(git(&root, &["rev-parse", "--git-path", name])?);
        // A file that is not there would be taken for changed at each build.
        if file.exists() {
            println!("cargo:rerun-if-changed={}", file.display());
        }
    }
    git(&root, &["rev-parse", "--short=12", "HEAD"])
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
