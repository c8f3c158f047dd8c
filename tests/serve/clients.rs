//! Clients that others wrote, in Python: `cargo xtask test` installs them where it may.

use super::support::Server;
use std::path::Path;
use std::process::Command;

#[test]
fn clients_that_others_wrote_are_served() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("HEADWATER_CLIENTS_PYTHON").map(Into::into);
    let python = named.unwrap_or_else(|| root.join("target/clients-venv/bin/python"));
    if !python.exists() {
        eprintln!("skipped: there is no {}; cargo xtask test makes it", python.display());
        return;
    }
    let keyed = Server::start(&["--api-key", "secret"]);
    let open = Server::start(&[]);
    let output = Command::new(python)
        .arg(root.join("tests/serve/clients.py"))
        .args([&open.address, &keyed.address])
        .arg(root.join("docs/openapi.json"))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}
