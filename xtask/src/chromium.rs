//! The pages of a comparison and of the server are tested in a real browser. Chromium is installed where that is allowed; elsewhere their tests
//! say that they were skipped.

use crate::run::{Failure, Step, succeeds};

/// As tests/common/mod.rs looks for them.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

pub(crate) fn ensure() -> Result<(), Failure> {
    if NAMES.iter().any(|name| succeeds(name, &["--version"])) {
        return Ok(());
    }
    let may_install = succeeds("apt-get", &["--version"]) && succeeds("sh", &["-c", "test \"$(id -u)\" = 0"]);
    if !may_install {
        println!("no Chromium was found: the tests of pages will be skipped");
        return Ok(());
    }
    let arguments = ["install", "-y", "-qq", "--no-install-recommends", "chromium"];
    let install =
        || Step::new("headless browser", "apt-get", &arguments).env("DEBIAN_FRONTEND", "noninteractive").run_silently();
    let installed = Step::new("package lists", "apt-get", &["update", "-qq"]).run_silently().and_then(|()| install());
    if installed.is_err() {
        println!("Chromium cannot be installed: the tests of pages will be skipped");
    }
    Ok(())
}
