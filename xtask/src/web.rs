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
const DEBIAN: &str = "/usr/bin/rustc";
const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "lld"];

/// An engine, compiled in its own way.
struct Engine {
    /// Of its files.
    name: &'static str,
    features: &'static [&'static str],
    flags: &'static str,
}

/// Vectors of 128 bits: every browser with WebGPU has them.
const ENGINE: Engine = Engine { name: "headwater_web", features: &[], flags: "-Ctarget-feature=+simd128" };

/// The processor alone, on several threads, for pages that may share memory between them. The linker is told of that memory, and that whoever starts a
/// thread sets up what is the thread's own.
const THREADS: Engine = Engine {
    name: "headwater_threads",
    features: &["--no-default-features", "--features", "threads"],
    flags: "-Ctarget-feature=+simd128,+atomics,+bulk-memory -Clink-arg=--shared-memory -Clink-arg=--import-memory \
        -Clink-arg=--max-memory=4294967296 -Clink-arg=--export=__wasm_init_tls -Clink-arg=--export=__tls_size -Clink-arg=--export=__tls_align \
        -Clink-arg=--export=__tls_base",
};

/// The most that the code of an engine may be, packed.
const MOST_BYTES: usize = 2_500_000;

/// The scripts beside the engine.
const SCRIPTS: [&str; 5] = ["index.js", "index.d.ts", "worker.js", "models.js", "package.json"];

/// Models that a page can load from where it lies itself.
const MODELS: [&str; 2] = ["icons-64-consistency", "icons-64"];

/// A compiler for WebAssembly.
enum Compiler {
    /// The one that builds everything else, with the target's standard library; and the folder where it lies.
    Own(PathBuf),
    Debian,
}

/// The source of a compiler's standard library, which may not be there.
fn source(compiler: &Compiler) -> PathBuf {
    let folder = match compiler {
        Compiler::Own(folder) => folder,
        Compiler::Debian => Path::new("/usr"),
    };
    folder.join("lib/rustlib/src/rust/library/Cargo.lock")
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
        return Some(Compiler::Own(sysroot));
    }
    let is_there =
        source(&Compiler::Debian).is_file() && succeeds(DEBIAN, &["--version"]) && succeeds("wasm-ld", &["--version"]);
    is_there.then_some(Compiler::Debian)
}

/// The cargo command that compiles an engine; none where it takes the source of the standard library, which is not there.
fn compile(engine: &Engine) -> Result<Option<Step>, Failure> {
    let Some(compiler) = compiler() else {
        return Err(Failure::new(format!("no compiler for WebAssembly was found; run: rustup target add {TARGET}")));
    };
    let target = ["build", "--profile", "web", "--target", TARGET, "--package", "headwater-web"];
    // The one that is there has no threads.
    let from_source: &[&str] = match (&compiler, engine.features) {
        (Compiler::Own(_), []) => &[],
        _ => &["-Zbuild-std=std,panic_abort"],
    };
    if !from_source.is_empty() && !source(&compiler).is_file() {
        println!("{} is left out; it takes: rustup component add rust-src", engine.name);
        return Ok(None);
    }
    let mut step = cargo(engine.name, &[&target, engine.features, from_source].concat())
        .env("CARGO_TARGET_DIR", &root().join(BUILT).to_string_lossy())
        .env("RUSTFLAGS", engine.flags);
    if !from_source.is_empty() {
        // What makes a standard library is a flag of cargo that is not stable.
        step = step.env("RUSTC_BOOTSTRAP", "1");
    }
    if matches!(compiler, Compiler::Debian) {
        step = step.env("RUSTC", DEBIAN).env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
    }
    Ok(Some(step))
}

/// Builds the folder.
pub(crate) fn build() -> Result<(), Failure> {
    let site = root().join(SITE);
    // What an earlier build left behind is no part of this one.
    drop(fs::remove_dir_all(&site));
    fs::create_dir_all(&site).map_err(|error| failed(&site, &error))?;
    for engine in [ENGINE, THREADS] {
        let Some(step) = compile(&engine)? else { continue };
        step.run()?;
        add_engine(&engine, &site)?;
    }
    for script in SCRIPTS {
        copy(&root().join("web").join(script), &site.join(script))?;
    }
    for model in MODELS {
        copy_model(model, &site)?;
    }
    write(&site.join("index.html"), &page()?)?;
    keep(&site)
}

/// An engine's module and the scripts that call it.
fn add_engine(engine: &Engine, site: &Path) -> Result<(), Failure> {
    // Both engines are compiled to a file of one name.
    let wasm = root().join(BUILT).join(TARGET).join("web/headwater_web.wasm");
    let bindgen = ["run", "--quiet", "--package", "xtask", "--features", "web", "--bin", "bindgen", "--"];
    let (from, to) = (wasm.to_string_lossy(), site.to_string_lossy());
    cargo("its script", &[&bindgen[..], &[&*from, &*to, engine.name]].concat()).run()?;
    let module = site.join(format!("{}_bg.wasm", engine.name));
    let whole = fs::metadata(&module).map_err(|error| failed(&module, &error))?.len();
    let packed = packed(&module)?;
    println!("{}: {:.2} MB of code, {:.2} MB packed", engine.name, whole as f64 / 1e6, packed as f64 / 1e6);
    if packed > MOST_BYTES {
        return Err(Failure::new(format!("{} is {packed} bytes, packed, and may be {MOST_BYTES}", engine.name)));
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

/// What keeps the page in a browser: told the files, and a number that is another for other files, by which a browser learns that there are new ones
/// (FNV-1a).
fn keep(site: &Path) -> Result<(), Failure> {
    let mut files = files(site, site)?;
    files.retain(|name| !name.starts_with("models/"));
    files.sort();
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for name in &files {
        let file = site.join(name);
        let bytes = fs::read(&file).map_err(|error| failed(&file, &error))?;
        sum = bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
    let list = files.iter().map(|name| format!("\"./{name}\"")).collect::<Vec<_>>().join(", ");
    let keeper = read(&root().join("web/sw.js"))?.replace("VERSION", &format!("{sum:016x}"));
    write(&site.join("sw.js"), &keeper.replace("\"FILES\"", &list))
}

/// The files in a folder and in those below it, by their paths from `site`.
fn files(folder: &Path, site: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let path = entry.map_err(|error| failed(folder, &error))?.path();
        if path.is_dir() {
            found.extend(files(&path, site)?);
        } else if let Ok(inside) = path.strip_prefix(site) {
            found.push(inside.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(found)
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
