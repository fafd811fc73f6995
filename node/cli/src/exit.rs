//! How a verb ends: error, causes, and the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;

/// A verb that ran, and whose answer is no: the facts were printed already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Negative(pub String);

/// A verb that ran, and could not tell: neither yes nor no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Untold(pub String);

/// Prints an error with its causes and chooses the exit code.
pub fn code(result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let mut stderr = std::io::stderr().lock();
    // A closed pipe while printing facts (`instar … | head`) is no failure worth words.
    if error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    {
        return ExitCode::from(1);
    }
    let _ = writeln!(stderr, "error: {error}");
    for cause in error.chain().skip(1) {
        let _ = writeln!(stderr, "  because: {cause}");
    }
    if error.is::<Untold>() {
        return ExitCode::from(3);
    }
    ExitCode::from(1)
}

/// Prints facts: one JSON line with `--json`, else what `words` says.
pub fn facts<T: serde::Serialize>(
    json: bool,
    value: &T,
    words: impl FnOnce(&T) -> String,
) -> Result<()> {
    let text = if json {
        serde_json::to_string(value)?
    } else {
        words(value)
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    Ok(())
}
