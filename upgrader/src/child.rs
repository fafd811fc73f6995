//! The program's process: it dies with its supervisor, and nothing of it is left when another one starts.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::layout::Layout;
use crate::wire::SOCKET_VARIABLE;

/// How long a process that was killed may take to be gone: long enough to give back a lot of memory.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// More than any line of `/proc/<pid>/stat`: 52 numbers and a name of 64 bytes at most.
const MAX_STAT_BYTES: usize = 2048;

/// Starts the program. It gets SIGKILL when the calling thread ends, so that must be the one that supervises.
pub(crate) fn spawn(layout: &Layout, program: &Path, args: &[String]) -> io::Result<Child> {
    let supervisor = nix::unistd::getpid();
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C in a terminal reaches the supervisor alone, which then ends the program in order; and
    // whatever the program leaves behind can be found.
    command
        .args(args)
        .env(SOCKET_VARIABLE, layout.socket())
        .process_group(0);
    let note = CString::new(layout.child().into_os_string().into_vec())?;
    // SAFETY: between fork and exec only async-signal-safe calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != supervisor {
                // The supervisor was gone before the line above, and nobody would tell us.
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            note_self(&note);
            // What the supervisor ignores would stay ignored in the program. Not before the note, for which there may be no
            // room.
            nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigDfl)?;
            Ok(())
        });
    }
    command.spawn()
}

/// Copies `/proc/self/stat` to a file, for the next supervisor, should this one be killed. The process does it itself
/// before it becomes the program, so there is no moment in which the program runs and nobody could know. It is only
/// missing on a full disk; then there is nothing to wait for.
fn note_self(path: &CStr) {
    let mut stat = [0u8; MAX_STAT_BYTES];
    // SAFETY: both paths end in zero, the buffer is as long as is said, and each descriptor is closed once. All of it
    // is async-signal-safe.
    unsafe {
        let from = libc::open(
            c"/proc/self/stat".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        if from < 0 {
            return;
        }
        let length = libc::read(from, stat.as_mut_ptr().cast(), stat.len());
        libc::close(from);
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        let to = libc::open(path.as_ptr(), flags, 0o600 as libc::mode_t);
        if to < 0 {
            return;
        }
        if let Ok(length) = usize::try_from(length) {
            libc::write(to, stat.as_ptr().cast(), length);
        }
        libc::close(to);
    }
}

/// Waits until the process has ended, and leaves it to be reaped: as long as it is not, its id belongs to it.
pub(crate) fn wait_for_end(pid: u32) {
    loop {
        match waitid(
            Id::Pid(raw(pid)),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        ) {
            Err(nix::Error::EINTR) => {}
            _ => return,
        }
    }
}

/// Reaps a process that has ended, after ending all that it left in its group.
pub(crate) fn reap(child: &mut Child) -> io::Result<ExitStatus> {
    let _ = killpg(raw(child.id()), Signal::SIGKILL);
    child.wait()
}

/// Asks a process to end. It is our own child and not reaped, so the id is its own.
pub(crate) fn terminate(child: &Child) -> io::Result<()> {
    Ok(kill(raw(child.id()), Signal::SIGTERM)?)
}

/// An exit status in words.
pub(crate) fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

/// Makes sure that the program of an earlier supervisor is gone: that one was killed, and its program with it, but its
/// files stay locked until it is gone altogether.
pub(crate) fn await_earlier(layout: &Layout) -> io::Result<()> {
    let Ok(noted) = fs::read_to_string(layout.child()) else {
        return Ok(());
    };
    let pid = noted.split(' ').next().and_then(|pid| pid.parse().ok());
    let (Some(pid), Some(started)) = (pid, parse_start(&noted)) else {
        return Ok(());
    };
    let began = Instant::now();
    while started_at(pid) == Some(started) {
        // The same process still: same id, same start. It has lost its supervisor.
        let _ = kill(raw(pid), Signal::SIGKILL);
        if began.elapsed() > GONE_WITHIN {
            return Err(io::Error::other(format!(
                "process {pid} of an earlier supervisor does not end"
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// When a process was started, in clock ticks since boot; `None` if it is gone or a zombie, which holds nothing.
fn started_at(pid: u32) -> Option<u64> {
    parse_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time in a line of `/proc/<pid>/stat`, unless it is a zombie's.
fn parse_start(stat: &str) -> Option<u64> {
    // The name stands in parentheses and may hold anything; the fields are counted behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("Linux process ids fit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_its_start() {
        let own = started_at(std::process::id()).unwrap();
        assert!(own > 0);
        let mut child = Command::new("true").spawn().unwrap();
        wait_for_end(child.id());
        assert_eq!(started_at(child.id()), None, "a zombie is gone");
        assert_eq!(words(reap(&mut child).unwrap()), "exit code 0");
    }

    #[test]
    fn what_an_earlier_supervisor_left_is_ended() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        fs::create_dir_all(layout.root()).unwrap();
        await_earlier(&layout).unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let start = started_at(child.id()).unwrap();
        // Another process that happens to have the id is left alone.
        let other = stat.replace(&format!(" {start} "), &format!(" {} ", start + 1));
        fs::write(layout.child(), other).unwrap();
        await_earlier(&layout).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        fs::write(layout.child(), stat).unwrap();
        await_earlier(&layout).unwrap();
        assert_eq!(words(reap(&mut child).unwrap()), "killed by SIGKILL");
    }
}
