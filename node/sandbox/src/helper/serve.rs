//! What a helper does all its life: it makes containers when it is asked to, and ends each when it has to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::Cgroup;
use super::container::{Container, Maker};
use super::{Failure, Step, receive_fds, say};
use crate::wire::{MAX_LINE_BYTES, Order, Reply, Request};
use crate::{Exit, Job, Limits, Status};

/// A container that was asked for.
struct Asked {
    streams: [OwnedFd; 3],
    control: UnixStream,
}

/// One that runs.
struct Running {
    container: Container,
    control: BufReader<UnixStream>,
    cgroup: Cgroup,
    started: Instant,
    deadline: Instant,
}

/// Makes containers until the caller closes `socket`, and stays until the last of them is gone.
pub fn serve(socket: &UnixStream) -> Result<(), Failure> {
    let Order { job, at_once } = receive_order(socket)?;
    let mut free = Cgroup::create(&job.limits, at_once);
    let mut maker = Maker::new(&job)?;
    let cgroups = free.iter().flat_map(Cgroup::folders).collect();
    if say(&mut &*socket, &Reply::Ready { cgroups }).is_err() {
        return Ok(());
    }
    let mut asked = VecDeque::new();
    let mut running: Vec<Running> = Vec::new();
    let mut open = true;
    while open || !running.is_empty() || !asked.is_empty() {
        let next = wait(open.then_some(socket), &mut running)?;
        // From the last to the first, so that the numbers of those before stay true.
        for (number, cause) in next.ended.into_iter().rev() {
            free.push(end(running.swap_remove(number), cause, &job.limits)?);
        }
        if next.asked {
            match receive_fds(socket) {
                Ok([stdin, stdout, stderr, control]) => asked.push_back(Asked {
                    streams: [stdin, stdout, stderr],
                    control: control.into(),
                }),
                // The caller's end is closed.
                Err(_) => open = false,
            }
        }
        while let Some(mut cgroup) = free.pop() {
            let Some(next) = asked.pop_front() else {
                free.push(cgroup);
                break;
            };
            match maker.start(next.streams, &mut cgroup) {
                Ok(container) => running.push(Running::new(container, next.control, cgroup, &job)),
                Err(Failure { step, why, missing }) => {
                    let _ = say(&mut &next.control, &Reply::Failed { step, why, missing });
                    free.push(cgroup);
                }
            }
        }
    }
    Ok(())
}

fn receive_order(socket: &UnixStream) -> Result<Order, Failure> {
    // A longer read takes nothing of what follows, because the caller waits for the answer.
    let mut line = Vec::new();
    BufReader::new(socket)
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .step("receiving the job")?;
    serde_json::from_slice(&line).step("reading the job")
}

impl Running {
    fn new(container: Container, control: UnixStream, cgroup: Cgroup, job: &Job) -> Self {
        let started = Instant::now();
        // A caller that is gone has closed its end, which the next look notices.
        let _ = say(&mut &control, &Reply::Started);
        Self {
            container,
            control: BufReader::new(control),
            cgroup,
            started,
            deadline: started + Duration::from_millis(job.limits.wall_ms),
        }
    }

    /// Why it has to end, if the caller says so.
    fn obey(&mut self) -> Option<Status> {
        loop {
            let mut line = Vec::new();
            let read = self
                .control
                .by_ref()
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line);
            match (read, serde_json::from_slice::<Request>(&line)) {
                (Ok(1..), Ok(Request::Arm { wall_ms })) => {
                    self.deadline = Instant::now() + Duration::from_millis(wall_ms);
                }
                // An order to end, a closed socket, or a caller that isn't one.
                _ => return Some(Status::Killed),
            }
            if self.control.buffer().is_empty() {
                return None;
            }
        }
    }
}

/// What there is to do.
#[derive(Default)]
struct Next {
    /// A container is asked for, or the caller is gone.
    asked: bool,
    /// Which containers are gone (`None`) or have to go (why), in their order.
    ended: Vec<(usize, Option<Status>)>,
}

/// Waits until there is something to do.
fn wait(socket: Option<&UnixStream>, running: &mut [Running]) -> Result<Next, Failure> {
    let now = Instant::now();
    let timeout = match running.iter().map(|one| one.deadline).min() {
        // Rounded up, so that the loop doesn't spin through the last millisecond.
        Some(first) => {
            let left_ms = first.saturating_duration_since(now).as_millis() + 1;
            PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)
        }
        None => PollTimeout::NONE,
    };
    let of_containers = running
        .iter()
        .flat_map(|one| [one.container.pidfd(), one.control.get_ref().as_fd()]);
    let mut fds: Vec<PollFd<'_>> = of_containers
        .chain(socket.map(AsFd::as_fd))
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        // Without a way to watch there is no wall clock, and without it nothing may run: all ends with this process.
        Err(error) => return Err(Failure::new("watching the containers", error)),
    }
    let ready: Vec<bool> = fds
        .iter()
        .map(|fd| fd.revents().is_some_and(|events| !events.is_empty()))
        .collect();
    let now = Instant::now();
    let mut next = Next {
        asked: ready.len() > 2 * running.len() && ready[2 * running.len()],
        ..Next::default()
    };
    for (number, one) in running.iter_mut().enumerate() {
        let (gone, said) = (ready[2 * number], ready[2 * number + 1]);
        let cause = if gone {
            None
        } else {
            said.then(|| one.obey()).flatten()
        };
        if gone || cause.is_some() {
            next.ended.push((number, cause));
        } else if now >= one.deadline {
            next.ended.push((number, Some(Status::WallClock)));
        }
    }
    Ok(next)
}

/// Ends a container and reports how it ended; its cgroup is free then.
fn end(running: Running, cause: Option<Status>, limits: &Limits) -> Result<Cgroup, Failure> {
    let Running {
        container,
        control,
        cgroup,
        started,
        ..
    } = running;
    // The first process of a pid namespace takes all others with it.
    container.end();
    let (raw, usage) = container.reap().step("waiting for the container")?;
    let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = cause.unwrap_or_else(|| match raw {
        _ if cgroup.out_of_memory() && raw != Status::Exited(0) => Status::OutOfMemory,
        // The first process of a namespace gets no warning signal, so both limits are one, and end it at once. The
        // kernel counts time for the limit by ticks and for its report exactly, which differ on a busy machine.
        Status::Signaled(libc::SIGKILL | libc::SIGXCPU)
            if limits
                .cpu_s
                .is_some_and(|limit| usage.cpu_ms * 2 >= limit * 1000) =>
        {
            Status::CpuTime
        }
        other => other,
    });
    let exit = Exit {
        status,
        wall_ms,
        cpu_ms: usage.cpu_ms,
        resident_bytes: usage.resident_bytes,
    };
    // A caller that is gone needs no report.
    let _ = say(&mut control.get_ref(), &Reply::Ended(exit));
    Ok(cgroup)
}
