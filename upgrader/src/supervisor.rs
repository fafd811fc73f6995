//! The doing half: carries out the machine's steps and tells it what happened.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use instar_attest::json::JsonError;
use nix::fcntl::{Flock, FlockArg};

use crate::client::{Client, ClientError};
use crate::history::{self, Event, Line};
use crate::layout::Layout;
use crate::machine::{Action, Input, Machine, RequestId, Step};
use crate::server::Asked;
use crate::state::{Release, State};
use crate::timings::Timings;
use crate::wire::{Answer, Refusal, Request, Status};
use crate::{child, disk, server, signals, verify};

/// How long the loop waits when it waits for nothing in particular.
const IDLE: Duration = Duration::from_secs(3600);

/// The program that a fresh home begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// Where it is now; it is copied. Its file name becomes the name of the executable in every release.
    pub path: PathBuf,
    /// The CID of the release that it is; without it the file's own CID stands for that.
    pub release: Option<String>,
    /// The protocol number that it speaks.
    pub protocol: u32,
}

/// What to supervise, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The home; everything is kept in its folder `upgrader`.
    pub home: PathBuf,
    /// The program's arguments.
    pub args: Vec<String>,
    /// The program for a fresh home. A home that has one ignores it.
    pub first: First,
    /// How long things may take.
    pub timings: Timings,
}

/// Why the supervisor can't work. None of these is a reason to guess.
#[derive(Debug, thiserror::Error)]
pub enum UpgraderError {
    /// A file or folder can't be read or written.
    #[error("{path}: can't be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state file is damaged.
    #[error("{path}: the state can't be understood; nothing was changed")]
    State {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: JsonError,
    },
    /// The state file was written by another program.
    #[error("{path}: the state has format {found:?}, which this program does not know")]
    Format {
        /// Where it is.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// There is no state, so there was never a supervisor.
    #[error("{0}: no program was ever supervised here")]
    Fresh(PathBuf),
    /// Another supervisor runs.
    #[error("{0}: another supervisor runs in this home")]
    Locked(PathBuf),
    /// A release's name is no CID.
    #[error("{0:?} is not the name of a release")]
    Name(String),
    /// A file changed while it was copied.
    #[error("{0}: changed while it was copied")]
    Changed(PathBuf),
    /// The supervisor could not be talked to.
    #[error("the supervisor could not be asked")]
    Client(#[from] ClientError),
    /// The machine refused what was asked.
    #[error("refused: {0}")]
    Refused(Refusal),
}

impl UpgraderError {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }
}

/// What reaches the loop from its threads.
enum Message {
    Asked(Asked),
    Ended(u32),
    Verified(Release, Result<(), String>),
    Stop,
}

impl From<Asked> for Message {
    fn from(asked: Asked) -> Self {
        Self::Asked(asked)
    }
}

/// Supervises until SIGTERM, SIGINT or SIGHUP, then ends the program and returns.
pub fn run(config: Config) -> Result<(), UpgraderError> {
    let (to, from) = channel();
    let stop = to.clone();
    signals::on_stop(move || drop(stop.send(Message::Stop)))
        .map_err(|source| UpgraderError::file(&config.home, source))?;
    Supervisor::open(config, to)?.work(&from)
}

/// A supervisor on a thread of its own, for a program that does other things too, and for tests. It handles no signals.
#[derive(Debug)]
pub struct Running {
    stop: Sender<Message>,
    thread: Option<JoinHandle<Result<(), UpgraderError>>>,
}

/// Starts to supervise on a thread.
pub fn start(config: Config) -> Result<Running, UpgraderError> {
    let home = config.home.clone();
    let (to, from) = channel();
    let stop = to.clone();
    // The lock is taken on the thread, so its outcome has to be told.
    let (ready, opened) = channel();
    let work = move || match Supervisor::open(config, to) {
        Ok(supervisor) => {
            let _ = ready.send(Ok(()));
            supervisor.work(&from)
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    };
    let thread = std::thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(work)
        .map_err(|source| UpgraderError::file(&home, source))?;
    match opened.recv() {
        Ok(Err(error)) => Err(error),
        _ => Ok(Running {
            stop,
            thread: Some(thread),
        }),
    }
}

impl Running {
    /// Ends the program, then the supervisor.
    pub fn stop(mut self) -> Result<(), UpgraderError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), UpgraderError> {
        let _ = self.stop.send(Message::Stop);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.end();
        }
    }
}

struct Supervisor {
    layout: Layout,
    args: Vec<String>,
    exe: String,
    machine: Machine,
    began: Instant,
    /// The newest decision of which a step was carried out; steps of older ones are refused.
    plan: u64,
    child: Option<Child>,
    waiting: HashMap<RequestId, SyncSender<Answer>>,
    next_request: RequestId,
    to: Sender<Message>,
    /// Held as long as this supervisor lives.
    _lock: Flock<File>,
}

impl Supervisor {
    fn open(config: Config, to: Sender<Message>) -> Result<Self, UpgraderError> {
        let layout = Layout::new(&config.home);
        let wrap = |source| UpgraderError::file(layout.root(), source);
        disk::make_root(&layout).map_err(wrap)?;
        let lock = lock(&layout)?;
        child::await_earlier(&layout).map_err(wrap)?;
        let loaded = disk::load(&layout)?;
        let fresh = loaded.is_none();
        let state = match loaded {
            Some(state) => state,
            None => disk::install(&layout, &config.first)?,
        };
        disk::keep_reserve(&layout);
        server::listen(&layout, to.clone())
            .map_err(|source| UpgraderError::file(&layout.socket(), source))?;
        let supervisor = Self {
            args: config.args,
            exe: state.exe.clone(),
            plan: state.plan,
            machine: Machine::new(state, layout.linked(), config.timings),
            layout,
            began: Instant::now(),
            child: None,
            waiting: HashMap::new(),
            next_request: 0,
            to,
            _lock: lock,
        };
        if fresh {
            let release = supervisor.machine.state().good.release.clone();
            supervisor.record(0, Event::Installed { release });
        }
        Ok(supervisor)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn work(mut self, from: &Receiver<Message>) -> Result<(), UpgraderError> {
        loop {
            while let Some(action) = self.machine.next(self.now()) {
                if let Some(input) = self.perform(action) {
                    let now = self.now();
                    self.machine.input(input, now);
                }
            }
            if self.machine.finished() {
                let _ = std::fs::remove_file(self.layout.socket());
                return Ok(());
            }
            let wait = self.machine.deadline().map_or(IDLE, |t| {
                Duration::from_millis(t.saturating_sub(self.now()))
            });
            let input = match from.recv_timeout(wait) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => Some(Input::Tick),
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("the supervisor itself holds a sender")
                }
            };
            if let Some(input) = input {
                let now = self.now();
                self.machine.input(input, now);
            }
        }
    }

    /// Turns a message into what the machine understands.
    fn take(&mut self, message: Message) -> Option<Input> {
        match message {
            Message::Stop => Some(Input::Stop),
            Message::Verified(release, result) => Some(Input::Verified { release, result }),
            Message::Ended(pid) => {
                let mut child = self.child.take_if(|child| child.id() == pid)?;
                let status = match child::reap(&mut child) {
                    Ok(status) => child::words(status),
                    Err(e) => format!("it can't be waited for: {e}"),
                };
                Some(Input::Exited { status })
            }
            Message::Asked(Asked {
                request,
                pid,
                answer,
            }) => {
                let own = self.child.as_ref().map(Child::id);
                if matches!(request, Request::Health { .. }) && own != Some(pid) {
                    let refusal = Refusal::new(
                        "not-the-program",
                        "only the supervised program tells its health",
                    );
                    let _ = answer.send(Answer::Error(refusal));
                    return None;
                }
                self.next_request += 1;
                self.waiting.insert(self.next_request, answer);
                Some(Input::Request(self.next_request, request))
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Input> {
        if action.plan < self.plan {
            // Never seen; if a step of an overtaken decision ever got here, doing it would be wrong.
            return None;
        }
        self.plan = action.plan;
        match action.step {
            Step::Persist(state) => Some(Input::Persisted(self.persist(&state))),
            Step::Verify(release) => {
                let (layout, exe, to) = (self.layout.clone(), self.exe.clone(), self.to.clone());
                let target = release.clone();
                let work = move || {
                    let result = verify::verify(&layout, &exe, &target);
                    let _ = to.send(Message::Verified(target, result));
                };
                match std::thread::Builder::new()
                    .name("verify".to_owned())
                    .spawn(work)
                {
                    Ok(_) => None,
                    Err(e) => Some(Input::Verified {
                        release,
                        result: Err(format!("no thread to check it: {e}")),
                    }),
                }
            }
            Step::Link(release) => {
                let linked = self
                    .layout
                    .link(&release.release)
                    .map_err(|e| e.to_string());
                Some(Input::Linked(linked.map(|()| release.release)))
            }
            Step::Start(release) => Some(Input::Started(self.start(&release))),
            Step::Terminate => {
                self.child.as_ref().map(child::terminate);
                None
            }
            Step::Kill => {
                self.child.as_mut().map(Child::kill);
                None
            }
            Step::Remove(release) => {
                if let Err(e) = disk::remove(&self.layout, &release) {
                    let why = format!("{release} can't be removed: {e}");
                    self.record(action.plan, Event::DiskFailed { why });
                }
                None
            }
            Step::Record(event) => {
                self.record(action.plan, event);
                None
            }
            Step::Reply(request, answer) => {
                // Whoever asked may have gone.
                self.waiting.remove(&request).map(|to| to.send(answer));
                None
            }
        }
    }

    fn persist(&self, state: &State) -> Result<(), String> {
        disk::save(&self.layout, state).map_err(|e| e.to_string())?;
        disk::keep_reserve(&self.layout);
        Ok(())
    }

    fn start(&mut self, release: &Release) -> Result<u32, String> {
        let path = self.layout.executable(&release.release, &self.exe);
        let say = |e: io::Error| format!("{} can't be started: {e}", path.display());
        let mut child = child::spawn(&self.layout, &path, &self.args).map_err(say)?;
        let pid = child.id();
        let to = self.to.clone();
        let watch = move || {
            child::wait_for_end(pid);
            let _ = to.send(Message::Ended(pid));
        };
        if let Err(e) = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(watch)
        {
            // A program that nobody watches must not run.
            let _ = child.kill();
            let _ = child::reap(&mut child);
            return Err(say(e));
        }
        self.child = Some(child);
        Ok(pid)
    }

    fn record(&self, plan: u64, event: Event) {
        let time_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_millis());
        let line = Line {
            event,
            plan,
            time_ms: u64::try_from(time_ms).unwrap_or(u64::MAX),
        };
        // The history is for people; the state does not depend on it.
        let _ = history::append(&self.layout, &line);
    }
}

fn lock(layout: &Layout) -> Result<Flock<File>, UpgraderError> {
    let path = layout.lock();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| UpgraderError::file(&path, source))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => UpgraderError::Locked(layout.root().to_owned()),
        errno => UpgraderError::file(&path, errno.into()),
    })
}

/// What runs in a home and what is under way; also when no supervisor runs.
pub fn status(home: &Path) -> Result<Status, UpgraderError> {
    let layout = Layout::new(home);
    match Client::connect(home) {
        Ok(mut client) => Ok(client.status()?),
        Err(ClientError::NotRunning { .. }) => {
            let state = disk::load(&layout)?
                .ok_or_else(|| UpgraderError::Fresh(layout.root().to_owned()))?;
            let mut status = Machine::new(state, layout.linked(), Timings::default()).status();
            status.supervised = false;
            Ok(status)
        }
        Err(error) => Err(error.into()),
    }
}

/// Goes back to the last good program, or to the one before it. Where no supervisor runs, the next one does it.
pub fn revert(home: &Path, reason: &str) -> Result<(), UpgraderError> {
    match Client::connect(home) {
        Ok(mut client) => return Ok(client.revert(reason, true)?),
        Err(ClientError::NotRunning { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let layout = Layout::new(home);
    let fresh = || UpgraderError::Fresh(layout.root().to_owned());
    if !layout.root().exists() {
        return Err(fresh());
    }
    let _lock = lock(&layout)?;
    let state = disk::load(&layout)?.ok_or_else(fresh)?;
    let mut machine = Machine::new(state, layout.linked(), Timings::default());
    let request = Request::Revert {
        reason: reason.to_owned(),
        quarantine: true,
    };
    machine.input(Input::Request(0, request), 0);
    while let Some(action) = machine.next(0) {
        match action.step {
            Step::Persist(state) => {
                disk::save(&layout, &state)
                    .map_err(|source| UpgraderError::file(&layout.state(), source))?;
                machine.input(Input::Persisted(Ok(())), 0);
            }
            Step::Reply(_, Answer::Error(refusal)) => return Err(UpgraderError::Refused(refusal)),
            // It is on disk; the rest is for the next supervisor.
            Step::Reply(_, Answer::Ok(_)) => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}
