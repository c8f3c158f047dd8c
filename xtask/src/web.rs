//! What a browser takes: the engine as WebAssembly, its scripts, and the bundled models, in one folder that any server of files can hand out.

use crate::run::{Failure, Step, cargo, root, succeeds};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where all of it is built: other compilers and flags than the program's would throw each other's work away.
const BUILT: &str = "target/web";

/// What a server of files hands out.
pub(crate) const SITE: &str = "target/web/site";

const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler for browsers. It comes without a standard library for WebAssembly, which cargo makes of its source.
const DEBIAN: (&str, &str) = ("/usr/bin/rustc", "/usr/lib/rustlib/src/rust/library/Cargo.lock");
const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "lld"];

/// Vectors of 128 bits: every browser with WebGPU has them.
const FLAGS: &str = "-Ctarget-feature=+simd128";

/// The most that the code may be, packed.
const MOST_BYTES: usize = 2_500_000;

/// The scripts beside the engine.
const SCRIPTS: [&str; 5] = ["index.js", "index.d.ts", "worker.js", "models.js", "package.json"];

/// Models that a page can load from where it lies itself.
const MODELS: [&str; 2] = ["icons-64-consistency", "icons-64"];

/// A compiler for WebAssembly.
enum Compiler {
    /// The one that builds everything else, with the target's standard library.
    Own,
    Debian,
}

/// The compiler that is there, or could be installed; none, with a line that says why, where there is none.
pub(crate) fn ensure() -> Option<()> {
    if compiler().is_some() {
        return Some(());
    }
    let may_install = succeeds("apt-get", &["--version"]) && succeeds("sh", &["-c", "test \"$(id -u)\" = 0"]);
    if may_install {
        let arguments = [&["install", "-y", "-qq", "--no-install-recommends"][..], &PACKAGES].concat();
        let install = || {
            Step::new("compiler for browsers", "apt-get", &arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .run_silently()
        };
        // An error is told below, by what is missing after it.
        let _ = Step::new("package lists", "apt-get", &["update", "-qq"]).run_silently().and_then(|()| install());
    }
    if compiler().is_none() {
        println!(
            "no compiler for WebAssembly was found (rustup target add {TARGET}): what is for browsers will be skipped"
        );
        return None;
    }
    Some(())
}

fn compiler() -> Option<Compiler> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        return Some(Compiler::Own);
    }
    let (rustc, source) = DEBIAN;
    let is_there =
        Path::new(source).is_file() && succeeds(rustc, &["--version"]) && succeeds("wasm-ld", &["--version"]);
    is_there.then_some(Compiler::Debian)
}

/// A cargo command for the browser's target.
fn for_browsers(name: &str, arguments: &[&str]) -> Result<Step, Failure> {
    let Some(compiler) = compiler() else {
        return Err(Failure::new(format!("no compiler for WebAssembly was found; run: rustup target add {TARGET}")));
    };
    let target = ["--profile", "web", "--target", TARGET, "--package", "headwater-web"];
    let from_source: &[&str] = match compiler {
        Compiler::Own => &[],
        Compiler::Debian => &["-Zbuild-std=std,panic_abort"],
    };
    let step = cargo(name, &[arguments, &target, from_source].concat())
        .env("CARGO_TARGET_DIR", &root().join(BUILT).to_string_lossy())
        .env("RUSTFLAGS", FLAGS);
    Ok(match compiler {
        Compiler::Own => step,
        Compiler::Debian => {
            let (rustc, _) = DEBIAN;
            let step = step.env("RUSTC", rustc).env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
            // What makes a standard library is a flag of cargo that is not stable.
            step.env("RUSTC_BOOTSTRAP", "1")
        }
    })
}

/// Builds the folder.
pub(crate) fn build() -> Result<(), Failure> {
    for_browsers("engine", &["build"])?.run()?;
    let site = root().join(SITE);
    // What an earlier build left behind is no part of this one.
    drop(fs::remove_dir_all(&site));
    fs::create_dir_all(&site).map_err(|error| failed(&site, &error))?;
    let wasm = root().join(BUILT).join(TARGET).join("web/headwater_web.wasm");
    let bindgen = ["run", "--quiet", "--package", "xtask", "--features", "web", "--bin", "bindgen", "--"];
    let (from, to) = (wasm.to_string_lossy(), site.to_string_lossy());
    cargo("its script", &[&bindgen[..], &[&*from, &*to]].concat()).run()?;
    for script in SCRIPTS {
        copy(&root().join("web").join(script), &site.join(script))?;
    }
    for model in MODELS {
        copy_model(model, &site)?;
    }
    write(&site.join("index.html"), &page()?)?;
    let engine = site.join("headwater_web_bg.wasm");
    let version = version(&site)?;
    let keeper = read(&root().join("web/sw.js"))?.replace("VERSION", &format!("{version:016x}"));
    write(&site.join("sw.js"), &keeper)?;
    let whole = fs::metadata(&engine).map_err(|error| failed(&engine, &error))?.len();
    let packed = packed(&engine)?;
    println!("{SITE}: {:.2} MB of code, {:.2} MB packed", whole as f64 / 1e6, packed as f64 / 1e6);
    if packed > MOST_BYTES {
        return Err(Failure::new(format!("the engine is {packed} bytes, packed, and may be {MOST_BYTES}")));
    }
    Ok(())
}

/// The server's page around an engine of its own: the same document, style and script, but for the part that asks for pictures.
fn page() -> Result<String, Failure> {
    let folder = root().join("src/cli/serve/page");
    let list = read(&root().join("src/cli/serve/http/page.rs"))?;
    let mut script = Vec::new();
    for part in list.split("include_str!(\"../page/").skip(1).filter_map(|rest| rest.split('"').next()) {
        match part {
            "transport.js" => script.push(read(&root().join("web/transport.js"))?),
            part if part.ends_with(".js") => script.push(read(&folder.join(part))?),
            _ => {}
        }
    }
    let page = read(&folder.join("page.html"))?.replace("/*{style}*/", &read(&folder.join("page.css"))?);
    Ok(page.replace("/*{script}*/", &script.join("\n")))
}

/// Another number for other files of the page: a browser that keeps them learns by it that there are new ones (FNV-1a).
fn version(site: &Path) -> Result<u64, Failure> {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for name in ["index.html", "index.js", "worker.js", "models.js", "headwater_web.js", "headwater_web_bg.wasm"] {
        let file = site.join(name);
        let bytes = fs::read(&file).map_err(|error| failed(&file, &error))?;
        sum = bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
    Ok(sum)
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| failed(file, &error))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| failed(file, &error))
}

/// Bytes of a file as servers send it.
fn packed(file: &Path) -> Result<usize, Failure> {
    let output =
        Command::new("gzip").args(["-9", "--stdout"]).arg(file).output().map_err(|error| failed(file, &error))?;
    Ok(output.stdout.len())
}

/// A model's files, and a list of them with their sums, by which a page knows what to ask for and whether it came whole.
fn copy_model(model: &str, site: &Path) -> Result<(), Failure> {
    let sums = root().join("assets/models/SHA256SUMS");
    let text = read(&sums)?;
    let mut entries = Vec::new();
    for (sum, path) in text.lines().filter_map(|line| line.split_once("  ")) {
        let Some(inside) = path.trim_start_matches("./").strip_prefix(&format!("{model}/")) else { continue };
        if inside.ends_with(".md") && inside != "NOTICE.md" {
            continue;
        }
        let from = root().join("assets/models").join(model).join(inside);
        let bytes = fs::metadata(&from).map_err(|error| failed(&from, &error))?.len();
        copy(&from, &site.join("models").join(model).join(inside))?;
        entries.push(format!("  {{ \"path\": \"{inside}\", \"bytes\": {bytes}, \"sha256\": \"{sum}\" }}"));
    }
    let list = site.join("models").join(model).join("files.json");
    write(&list, &format!("[\n{}\n]\n", entries.join(",\n")))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    fs::copy(from, to).map(drop).map_err(|error| failed(from, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
