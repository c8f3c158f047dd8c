//! The page of a comparison is tested in a real browser. Chromium is installed where that is allowed; elsewhere its test says that it was skipped.

use crate::run::{Failure, Step, succeeds};

/// As tests/commands/report_page.rs looks for them.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

pub(crate) fn ensure() -> Result<(), Failure> {
    if NAMES.iter().any(|name| succeeds(name, &["--version"])) {
        return Ok(());
    }
    let may_install = succeeds("apt-get", &["--version"]) && succeeds("sh", &["-c", "test \"$(id -u)\" = 0"]);
    if !may_install {
        println!("no Chromium was found: the test of the comparison's page will be skipped");
        return Ok(());
    }
    let arguments = ["install", "-y", "-qq", "--no-install-recommends", "chromium"];
    let install =
        || Step::new("headless browser", "apt-get", &arguments).env("DEBIAN_FRONTEND", "noninteractive").run_silently();
    let installed = Step::new("package lists", "apt-get", &["update", "-qq"]).run_silently().and_then(|()| install());
    if installed.is_err() {
        println!("Chromium cannot be installed: the test of the comparison's page will be skipped");
    }
    Ok(())
}
