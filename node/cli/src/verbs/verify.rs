//! `instar verify`: a release's bundles against a policy, offline; or its source built again, and compared.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use cid::Cid;
use instar_attest::Digest;
use instar_attest::keyless::{MAX_TRUSTED_ROOT_BYTES, PUBLIC_TRUSTED_ROOT};
use instar_attest::policy::{Input, Policy, verify as verify_round};
use instar_attest::received::{MAX_RECEIVED_BYTES, Named};
use instar_attest::release::{Release, SBOM_PATH};
use instar_attest::release_check::{
    Answer, Document, MAX_BUNDLES, MAX_FILES, ReleaseInput, verify_release,
};
use instar_attest::release_policy::{MAX_POLICY_BYTES, ReleasePolicy};
use instar_builder::record::BuildRecord;
use instar_builder::{BuildRequest, Claimed, How, RECORD_FILE, RELEASE_FOLDER, verify_rebuild};
use instar_chunks::{BlockStore, Limits, export};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::NodeArgs;
use super::build::{Place, outcome, progress, repository};
use crate::exit::{Negative, facts};

/// The computed description of a release; nobody signs it.
const RELEASE_JSON: &str = "release.json";
/// How deeply the folders of a release may nest.
const MAX_DEPTH: usize = 32;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  instar verify coin-2 --bundle coin-2/*.sigstore.json --policy policy.json     # offline\n  instar verify bafy… --bundle a.json --bundle b.json --policy policy.json --node http://127.0.0.1:8080\n  instar verify --rebuild coin-2 --repository https://git.example.org/coin.git"
)]
pub struct Args {
    /// The release: a folder, or a root CID that a node has
    #[arg(value_name = "DIR|CID")]
    release: String,
    /// Attestations: bundles, or folders of `*.sigstore.json`
    #[arg(long, value_name = "FILE", num_args = 1..)]
    bundle: Vec<PathBuf>,
    /// Reviews: armoured SSH signatures over the source commit
    #[arg(long, value_name = "FILE", num_args = 1..)]
    review: Vec<PathBuf>,
    /// What the release must satisfy
    #[arg(long, value_name = "FILE", required_unless_present = "rebuild")]
    policy: Option<PathBuf>,
    /// The trusted root of a private Sigstore instance, or its client trust configuration; else the public one's
    #[arg(long, value_name = "FILE")]
    trust_config: Option<PathBuf>,
    /// Build the named source again, twice, and compare the files
    #[arg(long, conflicts_with_all = ["bundle", "review", "policy"])]
    rebuild: bool,
    /// Where the source is, for `--rebuild`: a folder or a URL
    #[arg(long, value_name = "REPO", requires = "rebuild")]
    repository: Option<String>,
    /// Where the rebuild goes; new or empty
    #[arg(
        long,
        value_name = "DIR",
        default_value = "instar-rebuild",
        requires = "rebuild"
    )]
    out: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let fetched;
    let dir = match args.release.parse::<Cid>() {
        Ok(cid) if !Path::new(&args.release).exists() => {
            fetched = tempfile::tempdir()?;
            let at = fetched.path().join("release");
            let store = BlockStore::open(&fetched.path().join("blocks.redb"))?;
            super::audit::fetch(&args.node.client()?, &store, &cid)?;
            export(&store, &cid, None, &at, &Limits::default())?;
            at
        }
        _ => PathBuf::from(&args.release),
    };
    ensure!(
        dir.is_dir(),
        "{} is neither a folder nor a CID",
        args.release
    );
    if args.rebuild {
        return rebuild(args, &dir);
    }
    let policy = args.policy.as_ref().context("clap asks for a policy")?;
    let policy = read_bounded(policy, MAX_POLICY_BYTES as u64)?;
    let files = files_of(&release_folder(&dir))?;
    let bundles = read_all(&args.bundle)?;
    // A build round's policy is canonical and names its format like any other; everything else is a person's.
    let format = serde_json::from_slice::<Value>(&policy).ok();
    if format.is_some_and(|p| p["format"] == "instar-policy-v1") {
        return by_round(args, &dir, &policy, &files, bundles);
    }
    let policy = ReleasePolicy::parse(&policy)?;
    let reviews = read_all(&args.review)?;
    let root = match &args.trust_config {
        Some(at) => read_bounded(at, MAX_TRUSTED_ROOT_BYTES as u64)?,
        None => PUBLIC_TRUSTED_ROOT.as_bytes().to_vec(),
    };
    let answer = verify_release(
        &ReleaseInput {
            files: &files,
            bundles: &documents(&bundles),
            reviews: &documents(&reviews),
            trusted_root: Some(&root),
        },
        &policy,
    );
    facts(args.json, &answer, words)?;
    match answer.refused_by() {
        None => Ok(()),
        Some(check) => Err(Negative(format!("{}: {}", check.rule, check.detail)).into()),
    }
}

fn documents(all: &[(String, Vec<u8>)]) -> Vec<Document<'_>> {
    all.iter()
        .map(|(name, bytes)| Document { name, bytes })
        .collect()
}

fn documents_line(ok: bool, decides: bool, rule: &str, detail: &str) -> String {
    let word = match (ok, decides) {
        (true, _) => "ok     ",
        (false, true) => "REFUSED",
        (false, false) => "ignored",
    };
    format!("{word} {rule}: {detail}")
}

fn words(answer: &Answer) -> String {
    let mut lines: Vec<String> = answer
        .checks
        .iter()
        .map(|c| documents_line(c.ok, c.decides, &c.rule, &c.detail))
        .collect();
    for s in &answer.signers {
        let whose = s
            .operator
            .as_deref()
            .map(|o| format!(" of {o}"))
            .unwrap_or_default();
        lines.push(format!(
            "{}: {}{whose}, known by {}",
            s.role, s.name, s.known_by
        ));
    }
    lines.push(match (&answer.commit, answer.ok) {
        (Some(commit), true) => format!("verified: built from commit {commit}"),
        _ => "NOT verified".into(),
    });
    lines.join("\n")
}

/// By the policy of a build round: the release is what `release.json` says, and the files must be that.
fn by_round(
    args: &Args,
    dir: &Path,
    policy: &[u8],
    files: &[Named],
    bundles: Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let policy = Policy::parse(policy)?;
    let at = release_folder(dir).join(RELEASE_JSON);
    let release = read_bounded(&at, instar_attest::release::MAX_RELEASE_BYTES as u64)?;
    let said = Release::parse(&release)?;
    let mut wanted: Vec<Named> = said
        .files
        .iter()
        .map(|f| Named {
            name: f.path.to_string(),
            sha256: f.sha256,
        })
        .collect();
    wanted.push(Named {
        name: SBOM_PATH.into(),
        sha256: said.sbom.sha256,
    });
    wanted.sort();
    if wanted != files {
        let differs = files.iter().find(|f| !wanted.contains(f));
        let differs = differs.or_else(|| wanted.iter().find(|f| !files.contains(f)));
        let name = differs.map_or("a file", |f| f.name.as_str());
        return Err(Negative(format!("{name} is not as {RELEASE_JSON} says")).into());
    }
    let bundles: Vec<Vec<u8>> = bundles.into_iter().map(|(_, bytes)| bytes).collect();
    let verdict = verify_round(
        &Input {
            release: &release,
            bundles: &bundles,
        },
        &policy,
    );
    facts(args.json, &verdict, |v| {
        let line =
            |c: &instar_attest::policy::Check| documents_line(c.ok, c.decides, &c.rule, &c.detail);
        let lines: Vec<String> = v.checks.iter().map(line).collect();
        lines.join("\n")
    })?;
    match verdict.refused_by() {
        None => Ok(()),
        Some(check) => Err(Negative(format!("{}: {}", check.rule, check.detail)).into()),
    }
}

fn rebuild(args: &Args, dir: &Path) -> Result<()> {
    let folder = release_folder(dir);
    let record = dir
        .join(RECORD_FILE)
        .is_file()
        .then(|| BuildRecord::read(dir))
        .transpose()?;
    let json_at = folder.join(RELEASE_JSON);
    let claimed = if json_at.is_file() {
        let bytes = read_bounded(&json_at, instar_attest::release::MAX_RELEASE_BYTES as u64)?;
        Claimed::from(&Release::parse(&bytes)?)
    } else if let Some(record) = &record {
        Claimed::from(record)
    } else {
        bail!(
            "{} has neither {RELEASE_JSON} nor {RECORD_FILE}, so it names no source",
            dir.display()
        );
    };
    // The files are what is asked about; the description only says what they should be.
    for file in claimed.targets.iter().flat_map(|t| &t.files) {
        let at = folder.join(file.path.as_str());
        ensure!(
            !at.exists() || sha256_of(&at)? == file.sha256,
            "{} is not what its description says",
            at.display()
        );
    }
    let named = args
        .repository
        .clone()
        .or_else(|| record.as_ref()?.repository.clone());
    let named = named.context("where is the source? name a folder or URL with --repository")?;
    let cache = args.place.cache()?;
    let how = match record.map(|r| r.recipe.to_string()).as_deref() {
        Some(instar_builder::RECIPE_NIX) => How::Nix,
        _ => How::AsSourceSays,
    };
    let request = BuildRequest {
        repository: repository(&named, &cache)?,
        revision: claimed.source.commit.clone(),
        slot: None,
        number: claimed.number,
        name: None,
        allow_dirty: false,
        how,
        out: args.out.clone(),
        cache,
        jobs: args.place.jobs(),
    };
    let answer = verify_rebuild(&claimed, &folder, &request, &mut progress)?;
    outcome(answer, |built, how| {
        let checked: Vec<&str> = built
            .record
            .targets
            .iter()
            .filter(|t| claimed.targets.iter().any(|c| c.target == t.target))
            .map(|t| t.target.as_str())
            .collect();
        ensure!(
            !checked.is_empty(),
            "none of the release's targets could be built here"
        );
        let value = json!({"rebuilt": checked, "source": claimed.source, "wall_ms": built.wall_ms});
        facts(args.json, &value, |_| {
            format!("{how}, those of the release: {}", checked.join(", "))
        })
    })
}

/// A build folder holds the release in a folder of its own; a fetched release is one.
fn release_folder(dir: &Path) -> PathBuf {
    let inner = dir.join(RELEASE_FOLDER);
    if inner.is_dir() {
        inner
    } else {
        dir.to_owned()
    }
}

/// Every file below a folder with its digest, sorted; a symbolic link is refused, since it shows what lies elsewhere.
fn files_of(root: &Path) -> Result<Vec<Named>> {
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = open.pop() {
        ensure!(depth <= MAX_DEPTH, "{} lies too deep", folder.display());
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push((path, depth + 1));
                continue;
            }
            ensure!(
                kind.is_file(),
                "{} is a symbolic link or a special file; a release holds plain files only",
                root.join(&path).display()
            );
            let name = path
                .to_str()
                .with_context(|| format!("{path:?} is not UTF-8"))?;
            if name == RELEASE_JSON {
                continue;
            }
            found.push(Named {
                name: name.to_owned(),
                sha256: sha256_of(&root.join(&path))?,
            });
            ensure!(found.len() <= MAX_FILES, "more than {MAX_FILES} files");
        }
    }
    found.sort();
    Ok(found)
}

/// Opens a plain file, and not what a link that was put in its place leads to.
fn open_plain(at: &Path) -> Result<File> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(at)
        .with_context(|| at.display().to_string())?;
    ensure!(
        file.metadata()?.is_file(),
        "{} is not a plain file",
        at.display()
    );
    Ok(file)
}

fn sha256_of(at: &Path) -> Result<Digest> {
    let mut file = open_plain(at)?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).with_context(|| at.display().to_string())?;
    Ok(Digest::from_bytes(hash.finalize().into()))
}

/// Reads a file of at most `max` bytes.
pub fn read_bounded(at: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(at).with_context(|| at.display().to_string())?;
    file.take(max + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= max,
        "{} has more than {max} bytes",
        at.display()
    );
    Ok(bytes)
}

/// Files, and the bundles in folders; too large ones are cut, and then refused as what they are.
fn read_all(given: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut paths = Vec::new();
    for path in given {
        if path.is_dir() {
            let mut inside = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let at = entry?.path();
                if at.to_string_lossy().ends_with(".sigstore.json") {
                    inside.push(at);
                }
            }
            inside.sort();
            paths.extend(inside);
        } else {
            paths.push(path.clone());
        }
    }
    ensure!(
        paths.len() <= MAX_BUNDLES,
        "more than {MAX_BUNDLES} files are given"
    );
    let mut all = Vec::new();
    for path in paths {
        let mut bytes = Vec::new();
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        file.take(MAX_RECEIVED_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        all.push((path.display().to_string(), bytes));
    }
    Ok(all)
}
