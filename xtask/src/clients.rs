//! The server is tested with clients that others wrote, in Python. They are installed where that is possible; elsewhere their test says that it
//! was skipped.

use crate::run::{Failure, Step, python, root, succeeds};

/// As tests/serve/clients.rs looks for it.
const ENVIRONMENT: &str = "target/clients-venv";

pub(crate) fn ensure() -> Result<(), Failure> {
    let environment = root().join(ENVIRONMENT);
    let has_all = |program: &str| {
        succeeds(
            program,
            &["-c", "import openai, openapi_spec_validator, prometheus_client, requests, sd_backend_client, webuiapi"],
        )
    };
    let program = environment.join("bin/python");
    if has_all(&program.to_string_lossy()) {
        return Ok(());
    }
    if !succeeds("python3", &["-m", "venv", "--help"]) {
        println!("no Python was found: the test of the server with others' clients will be skipped");
        return Ok(());
    }
    let made = Step::new("environment", "python3", &["-m", "venv", &environment.to_string_lossy()]).run();
    let arguments = ["-m", "pip", "install", "--quiet", "-r", "tests/serve/requirements.txt"];
    let installed = made.and_then(|()| python(&environment, &arguments).run());
    if installed.is_err() {
        // Half of it would fail where none is skipped.
        drop(std::fs::remove_dir_all(&environment));
        println!("others' clients cannot be installed: their test of the server will be skipped");
    }
    Ok(())
}
