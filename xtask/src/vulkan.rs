//! Kernels are tested on Mesa's software Vulkan driver, which is the same on every machine. It is installed where it is
//! missing.

use crate::run::{Failure, Step, succeeds};
use std::path::Path;

/// lavapipe for Vulkan; llvmpipe through EGL for OpenGL.
const PACKAGES: &[&str] = &["mesa-vulkan-drivers", "libvulkan1", "libegl1", "libgl1-mesa-dri"];

/// Where Linux distributions describe Vulkan drivers.
const DRIVERS: &[&str] = &["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];

/// Makes sure that the driver is there: installs it where that is allowed, else says what to install.
pub(crate) fn ensure() -> Result<(), Failure> {
    // Other systems have Metal or Direct3D.
    if !cfg!(target_os = "linux") || has_driver() {
        return Ok(());
    }
    let by_hand = format!("apt-get install --no-install-recommends {}", PACKAGES.join(" "));
    if !succeeds("apt-get", &["--version"]) {
        return Err(Failure::new(format!(
            "Mesa's software Vulkan driver was not found; install it (on Debian: {by_hand}; on Fedora: \
             mesa-vulkan-drivers; on Arch: vulkan-swrast)"
        )));
    }
    if !succeeds("sh", &["-c", "test \"$(id -u)\" = 0"]) {
        return Err(Failure::new(format!("Mesa's software Vulkan driver was not found; run: sudo {by_hand}")));
    }
    Step::new("package lists", "apt-get", &["update", "-qq"]).run_silently()?;
    let arguments = [&["install", "-y", "-qq", "--no-install-recommends"], PACKAGES].concat();
    Step::new("software Vulkan driver", "apt-get", &arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run_silently()?;
    if has_driver() {
        Ok(())
    } else {
        Err(Failure::new(format!("Mesa's software Vulkan driver is still not found after: {by_hand}")))
    }
}

/// Whether lavapipe, the loader that finds it, and Mesa's EGL are installed.
fn has_driver() -> bool {
    let is_lavapipe = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("lvp_icd");
    let described =
        |folder: &&str| std::fs::read_dir(Path::new(folder)).is_ok_and(|entries| entries.flatten().any(is_lavapipe));
    let has = |library: &str| ["/usr/lib", "/usr/lib64"].iter().any(|folder| lies_in(library, Path::new(folder), 2));
    DRIVERS.iter().any(described) && has("libvulkan.so.1") && has("libEGL_mesa.so.0")
}

/// Whether a library lies in a folder or one below it (Debian puts libraries in one named after the machine).
fn lies_in(library: &str, folder: &Path, depth: usize) -> bool {
    if folder.join(library).exists() {
        return true;
    }
    depth > 1
        && std::fs::read_dir(folder)
            .is_ok_and(|entries| entries.flatten().any(|e| e.path().is_dir() && lies_in(library, &e.path(), depth - 1)))
}
