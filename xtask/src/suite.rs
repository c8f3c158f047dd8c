//! What `cargo test` says, in short: a line for each program, everything about what failed, and totals in the end.

use crate::run::{Failure, Line, cargo, is_progress, processor_seconds};
use std::time::Instant;

/// As many programs are named that took longest.
const LONGEST: usize = 8;

/// Tests of one program.
#[derive(Debug, Default, Clone, PartialEq)]
struct Program {
    name: String,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    seconds: f64,
    /// Of all processors together, with programs that the tests started.
    processor_seconds: f64,
}

/// Reads what programs of tests say, line by line.
#[derive(Debug, Default)]
struct Report {
    done: Vec<Program>,
    current: Program,
    /// Whether what comes says why tests failed.
    explains: bool,
    /// What processors had worked when the last program began.
    worked: f64,
}

impl Report {
    /// What processors have worked for all programs that ended; those of a program are the difference.
    fn account(&mut self, worked: Option<f64>) {
        let Some(worked) = worked else { return };
        if let Some(last) = self.done.last_mut() {
            last.processor_seconds += worked - self.worked;
        }
        self.worked = worked;
    }

    fn read(&mut self, line: &str) -> Line {
        let text = line.trim_start();
        if let Some(name) =
            text.strip_prefix("Running ").or_else(|| text.strip_prefix("Doc-tests ")).filter(|_| line.starts_with("  "))
        {
            let name = name.split(" (").next().unwrap_or(name).trim_start_matches("unittests ");
            let name = if text.starts_with("Doc-tests") { format!("documentation of {name}") } else { name.to_owned() };
            (self.current, self.explains) = (Program { name, ..Program::default() }, false);
            return Line::Progress;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.end(result);
            return Line::Dropped;
        }
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... ")) {
            return self.test(name, result);
        }
        if let Some(why) = line.strip_prefix("skipped: ") {
            self.current.skipped.push(why.to_owned());
            return Line::Dropped;
        }
        self.explains |= line == "failures:";
        match () {
            () if is_progress(line) => Line::Progress,
            () if !self.explains && (line.is_empty() || line.starts_with("running ")) => Line::Dropped,
            () if self.explains || line.starts_with("error") || line.starts_with("warning") => Line::Shown,
            () => Line::Kept,
        }
    }

    fn test(&mut self, name: &str, result: &str) -> Line {
        match result {
            "ok" => self.current.passed += 1,
            "FAILED" => {
                self.current.failed.push(name.to_owned());
                return Line::Shown;
            }
            ignored if ignored.starts_with("ignored") => self.current.skipped.push(name.to_owned()),
            _ => return Line::Shown,
        }
        Line::Dropped
    }

    fn end(&mut self, result: &str) {
        let seconds = result.rsplit("finished in ").next().and_then(|time| time.trim_end_matches('s').parse().ok());
        let program = Program { seconds: seconds.unwrap_or(0.0), ..std::mem::take(&mut self.current) };
        // Documentation is tested in two programs of one name.
        self.current.name.clone_from(&program.name);
        self.explains = false;
        self.done.push(program);
    }

    /// Tests that passed.
    fn passed(&self) -> usize {
        self.done.iter().map(|program| program.passed).sum()
    }

    fn print(&self) {
        let mut longest: Vec<&Program> = self.done.iter().filter(|program| program.passed > 0).collect();
        longest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        println!("what took longest, and what processors worked for it:");
        for program in longest.iter().take(LONGEST) {
            let Program { name, seconds, processor_seconds, passed, .. } = program;
            println!("  {seconds:>6.1} s  {processor_seconds:>6.1} s  {name} ({passed} tests)");
        }
        let sum = |of: &dyn Fn(&Program) -> f64| self.done.iter().map(of).sum::<f64>();
        println!(
            "  {:>6.1} s  {:>6.1} s  all",
            sum(&|program| program.seconds),
            sum(&|program| program.processor_seconds)
        );
        let (failed, skipped) = (self.all(|program| &program.failed), self.all(|program| &program.skipped));
        for (what, list) in [("skipped", &skipped), ("failed", &failed)] {
            list.iter().for_each(|(program, test)| println!("{what}: {program}: {test}"));
        }
        println!("{} passed, {} failed, {} skipped", self.passed(), failed.len(), skipped.len());
    }

    fn all<'a>(&'a self, of: impl Fn(&'a Program) -> &'a Vec<String>) -> Vec<(&'a str, &'a str)> {
        let one = |program: &'a Program| of(program).iter().map(|test| (&*program.name, &**test));
        self.done.iter().flat_map(one).collect()
    }
}

/// All tests of the workspace, also behind one that fails.
pub(crate) fn run() -> Result<(), Failure> {
    let (mut report, started) = (Report::default(), Instant::now());
    // Mesa's device-select layer complains where there is no display.
    let tests = cargo("tests", &["test", "--workspace", "--no-fail-fast"]).env("NODEVICE_SELECT", "1");
    let result = tests.watched(|line, process| {
        // The program before has ended when the next one begins.
        if line.starts_with("     Running ") || line.starts_with("   Doc-tests ") {
            report.account(processor_seconds(process));
        }
        let before = report.done.len();
        let sorted = report.read(line);
        if let Some(program) = report.done.get(before).filter(|program| program.passed + program.failed.len() > 0) {
            let at = started.elapsed().as_secs_f64();
            println!("   {at:.0} s  {}: {} passed in {:.1} s", program.name, program.passed, program.seconds);
        }
        sorted
    });
    report.print();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_those_of_all_programs() {
        let said = "\
   Compiling headwater v0.1.0 (/tmp)
     Running unittests src/lib.rs (target/debug/deps/graph-1)

running 2 tests
test a::one ... ok
test a::two ... FAILED

failures:

---- a::two stdout ----
thread panicked

failures:
    a::two

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s

     Running tests/cli.rs (target/debug/deps/cli-1)
running 2 tests
skipped: no browser
test three ... ok
test four ... ignored
test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.25s

   Doc-tests headwater
running 1 test
test src/lib.rs - (line 9) ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let mut report = Report::default();
        let shown: Vec<&str> = said.lines().filter(|line| report.read(line) == Line::Shown).collect();
        assert!(shown.contains(&"thread panicked") && shown.contains(&"test a::two ... FAILED"), "{shown:?}");
        assert!(!shown.iter().any(|line| line.contains("Compiling") || line.contains("four")), "{shown:?}");
        assert_eq!(report.passed(), 3);
        assert_eq!(report.all(|program| &program.failed), [("src/lib.rs", "a::two")]);
        assert_eq!(report.all(|program| &program.skipped), [("tests/cli.rs", "no browser"), ("tests/cli.rs", "four")]);
        let times: Vec<f64> = report.done.iter().map(|program| program.seconds).collect();
        assert!(times.iter().zip([1.5, 0.25, 0.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
        assert_eq!(report.done[2].name, "documentation of headwater");
    }
}
