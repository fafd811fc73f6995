//! Limits for a container as a whole, where the kernel gives them to this user.
//!
//! The folders are made, and the limits written, before the helper gives up its rights; what it needs afterwards it
//! holds open. Each container has folders to itself below the cgroup that the helper was started in; the next one gets them
//! when it has ended, and they are removed with the helper.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use crate::Limits;

/// Beside the memory that its processes may map, a container has files in memory and the kernel's own notes about it.
const SLACK_BYTES: u64 = 32 * 1024 * 1024;

/// The period over which a share of the processors is counted.
const CPU_PERIOD_US: u64 = 100_000;

/// The kernel's counts of a cgroup are a few short lines.
const MAX_EVENTS_BYTES: usize = 1024;

/// Leftovers are swept by whoever comes next; their names tell whose they are.
const PREFIX: &str = "instar-";

/// Which limit a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Pids,
    Cpu,
}

const CONTROLLERS: [Controller; 3] = [Controller::Memory, Controller::Pids, Controller::Cpu];

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    name: String,
    parent: File,
    procs: File,
    events: Option<File>,
}

/// The folders of one container.
#[derive(Debug, Default)]
pub struct Cgroup {
    folders: Vec<Folder>,
    holds: Vec<Controller>,
    /// How many processes the kernel had ended here before this container.
    killed_before: u64,
}

impl Cgroup {
    /// Makes so many, of what the kernel gives; what it doesn't is left out.
    pub fn create(limits: &Limits, count: usize) -> Vec<Self> {
        let places = places();
        for place in &places {
            sweep(&place.folder);
        }
        let make = |number| {
            let name = format!("{PREFIX}{}-{number}", std::process::id());
            let mut made = Self::default();
            for place in &places {
                made.add(place, &name, limits);
            }
            made
        };
        (0..count).map(make).collect()
    }

    fn add(&mut self, place: &Place, name: &str, limits: &Limits) {
        let wanted: Vec<Controller> = place
            .controllers
            .iter()
            .copied()
            .filter(|controller| !self.holds.contains(controller))
            .collect();
        let path = place.folder.join(name);
        if wanted.is_empty() || !make(&path) {
            return;
        }
        let held: Vec<Controller> = wanted
            .into_iter()
            .filter(|controller| write_limit(&path, *controller, place.unified, limits))
            .collect();
        let events = if place.unified {
            "memory.events.local"
        } else {
            "memory.oom_control"
        };
        let folder = File::open(&place.folder).and_then(|parent| {
            let procs = File::options()
                .write(true)
                .open(path.join("cgroup.procs"))?;
            let events = File::open(path.join(events)).ok();
            Ok(Folder {
                path: path.clone(),
                name: name.to_owned(),
                parent,
                procs,
                events,
            })
        });
        match folder {
            Ok(folder) if !held.is_empty() => {
                self.holds.extend(held);
                self.folders.push(folder);
            }
            _ => {
                let _ = fs::remove_dir(&path);
            }
        }
    }

    /// Which limits hold.
    pub fn holds(&self, controller: Controller) -> bool {
        self.holds.contains(&controller)
    }

    /// The paths, for who has to clean up after a helper that was killed.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.path.clone())
            .collect()
    }

    /// Puts a process, and so all that it will start, under the limits.
    pub fn add_process(&mut self, pid: Pid) -> std::io::Result<()> {
        self.killed_before = self.killed();
        self.folders
            .iter()
            .try_for_each(|folder| (&folder.procs).write_all(pid.to_string().as_bytes()))
    }

    /// Whether the kernel ended a process because the memory limit was reached.
    pub fn out_of_memory(&self) -> bool {
        self.killed() > self.killed_before
    }

    fn killed(&self) -> u64 {
        let counts = self.folders.iter().filter_map(|folder| {
            let mut text = [0; MAX_EVENTS_BYTES];
            let length = folder.events.as_ref()?.read_at(&mut text, 0).ok()?;
            let text = std::str::from_utf8(&text[..length]).ok()?;
            let count = text
                .lines()
                .find_map(|line| line.strip_prefix("oom_kill "))?;
            count.trim().parse::<u64>().ok()
        });
        counts.sum()
    }
}

impl Drop for Cgroup {
    /// Removes the folders, whether the container ever came to be or has ended.
    fn drop(&mut self) {
        for folder in &self.folders {
            // The paths are covered by now, so the way goes through the open parent. The last process may take a moment
            // to be taken off the books.
            for _ in 0..50 {
                let parent = Some(folder.parent.as_raw_fd());
                match unlinkat(parent, folder.name.as_str(), UnlinkatFlags::RemoveDir) {
                    Err(nix::errno::Errno::EBUSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(1))
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Which limits this user gets, found by making a cgroup and removing it again: memory, pids, cpu.
pub fn given() -> (bool, bool, bool) {
    let limits = Limits {
        memory_bytes: 64 * 1024 * 1024,
        address_space_bytes: None,
        pids: 16,
        cpu_s: None,
        cpu_percent: Some(100),
        wall_ms: 1,
        file_bytes: 1,
        open_files: 1,
    };
    let made = Cgroup::create(&limits, 1);
    let holds = |controller| made.iter().any(|cgroup| cgroup.holds(controller));
    (
        holds(Controller::Memory),
        holds(Controller::Pids),
        holds(Controller::Cpu),
    )
}

/// A cgroup below which folders may be made.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    unified: bool,
    controllers: Vec<Controller>,
}

fn places() -> Vec<Place> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    places_from(&mounts, &own)
}

/// From the list of mounts and of this process's own cgroups.
fn places_from(mounts: &str, own: &str) -> Vec<Place> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        // Fields 4 and 5 are the mount's root and its place; after the dash come the type, the source, the options.
        let Some((front, back)) = line.split_once(" - ") else {
            continue;
        };
        let mut front = front.split(' ').skip(3);
        let (Some(root), Some(at)) = (front.next(), front.next()) else {
            continue;
        };
        let mut back = back.split(' ');
        let (kind, options) = (back.next(), back.nth(1).unwrap_or_default());
        let inside = |controllers: &str| {
            own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (names, path) = (parts.next()?, parts.next()?);
                let same = if controllers.is_empty() {
                    names.is_empty()
                } else {
                    names.split(',').any(|name| name == controllers)
                };
                if !same {
                    return None;
                }
                let below = if root == "/" {
                    path
                } else {
                    path.strip_prefix(root)?
                };
                Some(PathBuf::from(at).join(below.trim_start_matches('/')))
            })
        };
        match kind {
            Some("cgroup") => {
                for controller in CONTROLLERS {
                    if options.split(',').any(|option| option == controller.name())
                        && let Some(folder) = inside(controller.name())
                    {
                        found.push(Place {
                            folder,
                            unified: false,
                            controllers: vec![controller],
                        });
                    }
                }
            }
            Some("cgroup2") => {
                if let Some(folder) = inside("") {
                    // A cgroup with processes in it can't hand limits down, so a sibling is the usual way.
                    let above = folder
                        .parent()
                        .filter(|above| above.starts_with(at))
                        .map(Path::to_path_buf);
                    for folder in [Some(folder), above].into_iter().flatten() {
                        found.push(Place {
                            folder,
                            unified: true,
                            controllers: CONTROLLERS.to_vec(),
                        });
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn write_limit(folder: &Path, controller: Controller, unified: bool, limits: &Limits) -> bool {
    let memory = (limits.memory_bytes + SLACK_BYTES).to_string();
    let quota_us = limits
        .cpu_percent
        .map(|percent| u64::from(percent) * CPU_PERIOD_US / 100);
    let put = |file: &str, value: &str| {
        // A cgroup file is never created; one that isn't there is a limit that the kernel doesn't have.
        File::options()
            .write(true)
            .open(folder.join(file))
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .is_ok()
    };
    match (controller, unified) {
        (Controller::Memory, true) => {
            // Without swap, where there is any, or the limit would only make the machine slow.
            let _ = put("memory.swap.max", "0");
            put("memory.max", &memory)
        }
        (Controller::Memory, false) => put("memory.limit_in_bytes", &memory),
        (Controller::Pids, _) => put("pids.max", &limits.pids.to_string()),
        (Controller::Cpu, true) => match quota_us {
            Some(quota) => put("cpu.max", &format!("{quota} {CPU_PERIOD_US}")),
            None => false,
        },
        (Controller::Cpu, false) => match quota_us {
            Some(quota) => {
                put("cpu.cfs_period_us", &CPU_PERIOD_US.to_string())
                    && put("cpu.cfs_quota_us", &quota.to_string())
            }
            None => false,
        },
    }
}

/// Makes a cgroup. One of this name is a leftover of a helper that had this process's number.
fn make(path: &Path) -> bool {
    match fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => fs::remove_dir(path)
            .and_then(|()| fs::create_dir(path))
            .is_ok(),
        made => made.is_ok(),
    }
}

/// Removes what a helper left behind that was killed together with its caller.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            // Not empty, not ours, or gone: then it stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &str, unified: bool, controllers: &[Controller]) -> Place {
        Place {
            folder: folder.into(),
            unified,
            controllers: controllers.to_vec(),
        }
    }

    #[test]
    fn hybrid_hierarchies_have_a_place_for_each_controller() {
        let mounts = "\
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let own = "4:memory:/some/where\n1:cpu,cpuacct:/\n0::/\n";
        assert_eq!(
            places_from(mounts, own),
            [
                place("/sys/fs/cgroup/cpu,cpuacct", false, &[Controller::Cpu]),
                place(
                    "/sys/fs/cgroup/memory/some/where",
                    false,
                    &[Controller::Memory]
                ),
                place("/sys/fs/cgroup/unified", true, &CONTROLLERS),
            ]
        );
    }

    #[test]
    fn a_unified_hierarchy_has_a_place_beside_and_below() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        let own = "0::/user.slice/user-1000.slice/app.slice/run-1.scope\n";
        let above = "/sys/fs/cgroup/user.slice/user-1000.slice/app.slice";
        assert_eq!(
            places_from(mounts, own),
            [
                place(&format!("{above}/run-1.scope"), true, &CONTROLLERS),
                place(above, true, &CONTROLLERS),
            ]
        );
    }

    #[test]
    fn nothing_outside_of_what_is_mounted_is_a_place() {
        // As in a container that sees only a part of the hierarchy: never above the mount, never beside it.
        let mounts = "30 25 0:26 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(
            places_from(mounts, "0::/docker/1\n"),
            [place("/sys/fs/cgroup", true, &CONTROLLERS)]
        );
        assert!(places_from(mounts, "0::/elsewhere\n").is_empty());
        assert!(places_from("nonsense\n", "0::/\n").is_empty());
    }
}
