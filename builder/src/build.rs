//! The recipe `cargo`: a commit becomes a release folder, built twice, or the reason why it doesn't.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use instar_attest::release::{ProgramName, Recipe, Slot, Target};
use serde::Serialize;

use crate::assemble::{Made, assemble, find_made, keep_debug_info};
use crate::compare::{FileDifference, compare};
use crate::conditions::{Conditions, clock_library};
use crate::diffoscope::diffoscope;
use crate::error::{At, BuildError};
use crate::explain::{Cause, Clues};
use crate::hermetic::{self, Inputs, Ran};
use crate::project::{Kind, Project, RecipeChoice, triple_and_cpu};
use crate::record::{BuildRecord, RECIPE_CARGO, RecordFormat, ToolchainFacts, system_facts};
use crate::sbom::sbom;
use crate::source::{Commit, extract, resolve, resolve_dirty};
use crate::toolchain::Toolchain;
use crate::vendor;

/// How many of the last lines a failed build is reported with. The whole log lies in the output folder.
pub const LOG_TAIL_LINES: usize = 40;

/// What to build, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    /// A git repository on this machine: a checkout or a bare one. Its work tree is never looked at.
    pub repository: PathBuf,
    /// The commit, or a name for it that is resolved once.
    pub revision: String,
    /// What the release replaces; left open, it is `dapps/<name>` for a dapp and `node` for a program.
    pub slot: Option<Slot>,
    /// The release number.
    pub number: u64,
    /// The name under which the program is released; left open, the source says it.
    pub name: Option<ProgramName>,
    /// Whether the work tree is built if it is not the commit's. Such a build is marked and can't be attested.
    pub allow_dirty: bool,
    /// How it is built.
    pub how: How,
    /// The output folder: new, or empty.
    pub out: PathBuf,
    /// What may be kept between builds: vendored crates, digests of toolchains. Work folders lie there as well.
    pub cache: PathBuf,
    /// How many jobs the first build runs at once.
    pub jobs: usize,
}

/// How a source is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// As `instar.toml` says; with cargo, if it says nothing.
    AsSourceSays,
    /// In the sandbox, from vendored crates, twice.
    Cargo,
    /// By Nix, in its sandbox, and again with `--check`.
    Nix,
    /// Once, going on from what was compiled for a checkout of another commit. Not hermetic, and said so.
    CargoWarm {
        /// The checkout whose crates were compiled.
        checkout: PathBuf,
        /// Its target folder.
        target: PathBuf,
    },
}

/// What a build tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The commit is known and its tree written out.
    Extracted(&'a Commit),
    /// The toolchain has no standard library for this target, so it is left out.
    TargetLeftOut(&'a Target),
    /// The vendored crates were checked; so many.
    Vendored(u64),
    /// A build begins: the first or the second.
    Building(u32),
    /// A line of its output.
    Line(&'a str),
    /// The warm recipe can't go on from the checkout's target folder, and builds everything anew.
    FellBack(&'a str),
    /// The outputs are compared.
    Comparing,
    /// The release folder is put together.
    Assembling,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum BuildOutcome {
    /// Both builds made the same bytes, and here they are.
    Equal(Box<Built>),
    /// The recipe builds once, so nobody knows whether another build would make the same bytes.
    Once(Box<Built>),
    /// Both builds worked and made different bytes: nothing to release.
    Different(DifferentBuild),
    /// A build did not work.
    Failed(FailedBuild),
}

/// A release folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Built {
    /// What it is, from what, with what.
    pub record: BuildRecord,
    /// The output folder: `release/`, `build.json` and the logs.
    pub out: PathBuf,
    /// How long each build took.
    pub wall_ms: Vec<u64>,
}

/// Two builds that made different bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DifferentBuild {
    /// What differs, and probably why.
    pub files: Vec<FileDifference>,
    /// What diffoscope says, where it is installed.
    pub diffoscope: Option<PathBuf>,
    /// What each build made, kept for a closer look.
    pub kept: [PathBuf; 2],
    /// The whole output of each.
    pub logs: [PathBuf; 2],
}

/// A build that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedBuild {
    /// Which of the two.
    pub build: u32,
    /// How it ended.
    pub ended: String,
    /// The last lines of its output.
    pub tail: Vec<String>,
    /// The whole output.
    pub log: PathBuf,
}

/// Builds a commit. Three things can come of it that are not errors: see [`BuildOutcome`].
pub fn build(
    request: &BuildRequest,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<BuildOutcome, BuildError> {
    let prepared = Prepared::new(request, progress)?;
    prepared.build(progress)
}

/// A commit whose tree is written out, ready to be built.
///
/// From here on only the work tree counts: whoever changes a byte of it gets another release. Tests do that, to show
/// that an attestation's named commit does not by itself make the bytes.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) request: BuildRequest,
    pub(crate) commit: Commit,
    pub(crate) work: tempfile::TempDir,
}

impl Prepared {
    /// Resolves the commit and writes its tree into a private work folder.
    pub fn new(
        request: &BuildRequest,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, BuildError> {
        let commit = if request.allow_dirty {
            resolve_dirty(&request.repository)?
        } else {
            resolve(&request.repository, &request.revision)?
        };
        let mut request = request.clone();
        let folder = request.cache.join("work");
        fs::create_dir_all(&folder).at("can't make", &folder)?;
        // What is mounted into a sandbox needs absolute paths.
        request.cache = request
            .cache
            .canonicalize()
            .at("can't find", &request.cache)?;
        let folder = request.cache.join("work");
        let work = tempfile::tempdir_in(&folder).at("can't make a folder in", &folder)?;
        extract(&request.repository, &commit, &work.path().join("source"))?;
        progress(Progress::Extracted(&commit));
        Ok(Self {
            request,
            commit,
            work,
        })
    }

    /// The commit that was resolved.
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// The private work tree, which is what is built.
    pub fn work_tree(&self) -> PathBuf {
        self.work.path().join("source")
    }

    /// Builds the work tree.
    pub fn build(self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<BuildOutcome, BuildError> {
        prepare_out(&self.request.out)?;
        match &self.request.how {
            How::AsSourceSays => match RecipeChoice::read(&self.work_tree())? {
                RecipeChoice::Cargo => self.cargo(progress),
                RecipeChoice::Nix => crate::nix::build(&self, progress),
            },
            How::Cargo => self.cargo(progress),
            How::Nix => crate::nix::build(&self, progress),
            How::CargoWarm { checkout, target } => {
                crate::warm::build(&self, checkout, target, progress)
            }
        }
    }

    fn cargo(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<BuildOutcome, BuildError> {
        let request = &self.request;
        let tree = self.work_tree();
        let project = Project::read(&tree, request.name.as_ref())?;
        let lock = vendor::read_lock(&tree)?;
        let toolchain = Toolchain::find(&tree)?;
        let targets = self.targets(&project, &toolchain, progress)?;
        let mut triples: Vec<String> = targets.iter().map(|t| triple_and_cpu(t).0).collect();
        triples.sort();
        triples.dedup();
        let vendored = vendor::prepare(&tree, &lock, &toolchain, &request.cache)?;
        progress(Progress::Vendored(vendored.facts.crates));
        let clock = clock_library(&request.cache)?;
        let inputs = Inputs {
            source: &tree,
            vendor: vendored.folder.as_deref(),
            toolchain: &toolchain,
            epoch_s: self.commit.time_s,
            package: &project.package,
            bin: &project.bin,
            features: &project.features,
            targets: &targets,
            debug_info: project.debug_info,
            clock: clock.as_deref(),
        };
        let both = [Conditions::first(request.jobs), Conditions::second()];
        let mut ran = Vec::with_capacity(2);
        let mut made = Vec::with_capacity(2);
        for (number, conditions) in (1u32..).zip(&both) {
            progress(Progress::Building(number));
            let log = request.out.join(format!("build-{number}.log"));
            let one = hermetic::build(&inputs, conditions, self.work.path(), &log, &mut |l| {
                progress(Progress::Line(l))
            })?;
            let Some(folder) = &one.made else {
                return Ok(BuildOutcome::Failed(failed(number, &one)?));
            };
            made.push(find_made(&project, &targets, folder)?);
            ran.push(one);
        }
        progress(Progress::Comparing);
        let differences = compare(&made[0], &made[1], &clues(&both, &ran, self.work.path()))?;
        if !differences.is_empty() {
            return Ok(BuildOutcome::Different(self.keep_both(
                differences,
                &made,
                &ran,
            )?));
        }
        progress(Progress::Assembling);
        let (files, sbom) = assemble(&project, &tree, &made[0], &sbom(&lock)?, &request.out)?;
        if project.debug_info {
            keep_debug_info(&project, &targets, &ran[0], &request.out)?;
        }
        let names: Vec<&str> = triples.iter().map(String::as_str).collect();
        let record = BuildRecord {
            format: RecordFormat::V1,
            recipe: Recipe::new(RECIPE_CARGO)?,
            hermetic: true,
            equal_builds: 2,
            slot: self.slot(&project)?,
            number: request.number,
            name: project.name.clone(),
            kind: project.kind,
            source: self.commit.source.clone(),
            repository: self.commit.repository.clone(),
            reference: self.commit.reference.clone(),
            dirty: self.commit.dirty,
            source_time_s: self.commit.time_s,
            targets: files,
            sbom,
            cargo_lock: lock.digest,
            toolchain: ToolchainFacts {
                digest: toolchain.digest(&names, &request.cache)?,
                version: toolchain.version.clone(),
            },
            vendor: vendored.facts,
            system: system_facts()?,
            started_s: ran[0].started_s,
            finished_s: ran[1].finished_s,
            warm: None,
        };
        record.write(&request.out)?;
        let wall_ms = ran.iter().map(|r| r.wall_ms).collect();
        Ok(BuildOutcome::Equal(Box::new(Built {
            record,
            out: request.out.clone(),
            wall_ms,
        })))
    }

    /// What the release replaces, concluded where it was left open.
    pub(crate) fn slot(&self, project: &Project) -> Result<Slot, BuildError> {
        match (&self.request.slot, project.kind) {
            (Some(slot), _) => Ok(slot.clone()),
            (None, Kind::Dapp) => Ok(Slot::new(format!("dapps/{}", project.name))?),
            (None, Kind::Program) => Ok(Slot::node()),
        }
    }

    /// The wanted targets whose standard library is here; the others are left to builders who have it.
    fn targets(
        &self,
        project: &Project,
        toolchain: &Toolchain,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<Target>, BuildError> {
        let mut here = Vec::new();
        for target in &project.targets {
            if toolchain.has_target(&triple_and_cpu(target).0) {
                here.push(target.clone());
            } else {
                progress(Progress::TargetLeftOut(target));
            }
        }
        if here.is_empty() {
            let wanted = project.targets.iter().map(ToString::to_string).collect();
            return Err(BuildError::NoTarget { wanted });
        }
        Ok(here)
    }

    fn keep_both(
        &self,
        files: Vec<FileDifference>,
        made: &[Made],
        ran: &[Ran],
    ) -> Result<DifferentBuild, BuildError> {
        let keep = |number: usize| {
            let folder = self.request.out.join(format!("different-{number}"));
            for (path, built) in &made[number - 1] {
                let at = folder.join(path);
                let parent = at.parent().expect("release paths are joined to a folder");
                fs::create_dir_all(parent).at("can't make", parent)?;
                fs::copy(built, &at).at("can't copy to", &at)?;
            }
            Ok::<_, BuildError>(folder)
        };
        let kept = [keep(1)?, keep(2)?];
        Ok(DifferentBuild {
            files,
            diffoscope: diffoscope(&kept, &self.request.out)?,
            kept,
            logs: [ran[0].log.clone(), ran[1].log.clone()],
        })
    }
}

/// The output folder must be new or empty, so that nothing old is taken for something built.
fn prepare_out(out: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(out).at("can't make", out)?;
    let mut entries = fs::read_dir(out).at("can't list", out)?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(BuildError::OutputTaken(out.to_owned())),
    }
}

pub(crate) fn failed(build: u32, ran: &Ran) -> Result<FailedBuild, BuildError> {
    let bytes = fs::read(&ran.log).at("can't read", &ran.log)?;
    let mut tail: VecDeque<String> = VecDeque::with_capacity(LOG_TAIL_LINES + 1);
    for line in String::from_utf8_lossy(&bytes).lines() {
        tail.push_back(line.to_owned());
        if tail.len() > LOG_TAIL_LINES {
            tail.pop_front();
        }
    }
    Ok(FailedBuild {
        build,
        ended: ran.ended.clone(),
        tail: tail.into(),
        log: ran.log.clone(),
    })
}

/// What the two builds had different, so that its traces can be found in what they made.
fn clues(both: &[Conditions; 2], ran: &[Ran], work: &Path) -> Clues {
    let pair = |of: &dyn Fn(&Conditions) -> String| [of(&both[0]), of(&both[1])];
    let time = |number: usize| {
        let ahead = u64::try_from(both[number].ahead_s).unwrap_or(0);
        (
            ran[number].started_s + ahead,
            ran[number].finished_s + ahead,
        )
    };
    Clues {
        times: [time(0), time(1)],
        texts: vec![
            (
                Cause::Path,
                pair(&|c| work.join(c.outside).display().to_string()),
            ),
            (Cause::HostName, pair(&|c| c.hostname.into())),
            (Cause::UserName, pair(&|c| c.user.into())),
            (Cause::TimeZone, pair(&|c| c.zone.into())),
            (Cause::Locale, pair(&|c| c.locale.into())),
        ],
    }
}
