//! The small supervisor. `instar upgrader` is the same code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use instar_upgrader::{Config, First, Timings, UpgraderError, history, revert, run, status};

const HELP: &str = "\
Supervise one program: stage, swap, probation, revert.

Usage:
  instar-upgrader run --home DIR --first FILE [options] [-- ARGUMENTS...]
  instar-upgrader status  --home DIR [--json]
  instar-upgrader history --home DIR [--json]
  instar-upgrader revert  --home DIR [--reason TEXT]

Options of run:
  --release CID           the release that FILE is (default: the file's own CID)
  --protocol N            the protocol number that FILE speaks (default: 1)
  --probation-blocks N    blocks that a new program must commit to be kept
  --probation-ms N        the time that it has for it
  --min-peers N           peers that it must have by then
  --max-starts N          starts that it may need
  --grace-ms N            time to stop after SIGTERM, before SIGKILL
  --silence-ms N          a program that is silent for so long is restarted; 0: never

Example:
  instar-upgrader run --home ~/.instar --first ./instar -- node run --home ~/.instar

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by the supervisor.
";

/// Wrong usage: exit code 2.
struct Usage(String);

enum Failure {
    Usage(Usage),
    Work(UpgraderError),
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Self::Usage(usage)
    }
}

impl From<UpgraderError> for Failure {
    fn from(error: UpgraderError) -> Self {
        Self::Work(error)
    }
}

fn main() -> ExitCode {
    let failure = match command(std::env::args().skip(1).collect()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    match failure {
        Failure::Usage(Usage(why)) => {
            eprintln!("error: {why}\nhint: instar-upgrader --help");
            ExitCode::from(2)
        }
        Failure::Work(error) => {
            eprintln!("error: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprintln!("cause: {cause}");
                source = cause.source();
            }
            let refused = matches!(&error, UpgraderError::Refused(_))
                || matches!(
                    &error,
                    UpgraderError::Client(instar_upgrader::ClientError::Refused(_))
                );
            ExitCode::from(if refused { 3 } else { 1 })
        }
    }
}

fn command(args: Vec<String>) -> Result<(), Failure> {
    let mut options = Options::parse(args)?;
    if options.flag("help") || options.verb.as_deref() == Some("help") {
        print!("{HELP}");
        return Ok(());
    }
    let Some(verb) = options.verb.clone() else {
        return Err(Usage("no command given".to_owned()).into());
    };
    let home = PathBuf::from(options.required("home")?);
    match verb.as_str() {
        "run" => {
            let config = config(&home, &mut options)?;
            options.finish()?;
            run(config)?;
        }
        "status" => {
            let json = options.flag("json");
            options.finish()?;
            print_status(&home, json)?;
        }
        "history" => {
            let json = options.flag("json");
            options.finish()?;
            print_history(&home, json)?;
        }
        "revert" => {
            let reason = options.value("reason")?.unwrap_or_default();
            options.finish()?;
            revert(&home, &reason)?;
            eprintln!(
                "reverting; see: instar-upgrader status --home {}",
                home.display()
            );
        }
        other => return Err(Usage(format!("no command {other:?}")).into()),
    }
    Ok(())
}

fn config(home: &Path, options: &mut Options) -> Result<Config, Usage> {
    let first = First {
        path: PathBuf::from(options.required("first")?),
        release: options.value("release")?,
        protocol: options.number("protocol", 1)?,
    };
    let d = Timings::default();
    let timings = Timings {
        grace_ms: options.number("grace-ms", d.grace_ms)?,
        probation_ms: options.number("probation-ms", d.probation_ms)?,
        probation_blocks: options.number("probation-blocks", d.probation_blocks)?,
        min_peers: options.number("min-peers", d.min_peers)?,
        max_starts: options.number("max-starts", d.max_starts)?,
        silence_ms: options.number("silence-ms", d.silence_ms)?,
        ..d
    };
    Ok(Config {
        home: home.to_owned(),
        args: std::mem::take(&mut options.program),
        first,
        timings,
    })
}

fn print_status(home: &Path, json: bool) -> Result<(), UpgraderError> {
    let status = status(home)?;
    if json {
        println!(
            "{}",
            serde_json::to_string(&status).expect("a status is plain data")
        );
        return Ok(());
    }
    let running = match (status.supervised, status.pid) {
        (true, Some(pid)) => format!("process {pid}"),
        (true, None) => "not running now".to_owned(),
        (false, _) => "no supervisor runs".to_owned(),
    };
    println!("release    {} ({running})", status.running.release);
    println!(
        "phase      {}{}",
        status.phase,
        if status.held { ", held" } else { "" }
    );
    println!("last good  {}", status.good.release);
    if let Some(previous) = &status.previous {
        println!("before     {}", previous.release);
    }
    if let Some(health) = status.health {
        println!(
            "health     height {}, {} peers",
            health.height, health.peers
        );
    }
    if let Some(outcome) = &status.outcome {
        let how = if outcome.kept { "kept" } else { "reverted: " };
        println!("last swap  {} {how}{}", outcome.release, outcome.reason);
    }
    for bad in &status.quarantine {
        println!("quarantine {}: {}", bad.release, bad.reason);
    }
    Ok(())
}

fn print_history(home: &Path, json: bool) -> Result<(), UpgraderError> {
    let lines = history(home).map_err(|source| UpgraderError::File {
        path: home.to_owned(),
        source,
    })?;
    for line in lines {
        let text = serde_json::to_value(&line).expect("a line is plain data");
        if json {
            println!("{text}");
            continue;
        }
        print!("{:>15}", line.time_ms);
        let fields = text
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| !["time_ms", "plan"].contains(&key.as_str()));
        for (key, value) in fields {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            match key.as_str() {
                "event" => print!("  {value:<12}"),
                _ => print!(" {key}={value}"),
            }
        }
        println!();
    }
    Ok(())
}

/// `--name value` pairs; `--json` and `--help` stand alone; what follows `--` is the program's.
#[derive(Default)]
struct Options {
    verb: Option<String>,
    named: Vec<(String, Option<String>)>,
    program: Vec<String>,
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self, Usage> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.strip_prefix("--") {
                Some("") => {
                    options.program = args.by_ref().collect();
                }
                Some(name @ ("json" | "help")) => options.named.push((name.to_owned(), None)),
                Some(name) => {
                    let value = args
                        .next()
                        .ok_or_else(|| Usage(format!("--{name} needs a value")))?;
                    options.named.push((name.to_owned(), Some(value)));
                }
                None if arg == "-h" => options.named.push(("help".to_owned(), None)),
                None if options.verb.is_none() => options.verb = Some(arg),
                None => return Err(Usage(format!("unexpected {arg:?}"))),
            }
        }
        Ok(options)
    }

    fn take(&mut self, name: &str) -> Option<Option<String>> {
        let at = self.named.iter().position(|(n, _)| n == name)?;
        Some(self.named.remove(at).1)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.take(name).is_some()
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, Usage> {
        Ok(self.take(name).flatten())
    }

    fn required(&mut self, name: &str) -> Result<String, Usage> {
        self.value(name)?
            .ok_or_else(|| Usage(format!("--{name} is needed")))
    }

    fn number<N: std::str::FromStr>(&mut self, name: &str, default: N) -> Result<N, Usage> {
        match self.value(name)? {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| Usage(format!("--{name} needs a number, not {text:?}"))),
        }
    }

    fn finish(&self) -> Result<(), Usage> {
        match self.named.first() {
            Some((name, _)) => Err(Usage(format!("this command has no option --{name}"))),
            None => Ok(()),
        }
    }
}
