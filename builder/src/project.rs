//! What the source says about itself: `instar.toml`, or what its `Cargo.toml` lets us conclude.

use std::fs;
use std::io::Read;
use std::path::{Component, Path};

use instar_attest::release::{ProgramName, Target};
use serde::Deserialize;

use crate::error::{At, BuildError, project};

/// The file in which a source says how it wants to be built.
pub const PROJECT_FILE: &str = "instar.toml";
/// The largest TOML or JSON file of a source that is read outside the sandbox.
pub const MAX_PROJECT_BYTES: u64 = 1 << 20;
/// How many targets one source may ask for.
pub const MAX_TARGETS: usize = 16;
/// The target that is built where the source names none.
pub const DEFAULT_TARGET: &str = "x86_64-unknown-linux-gnu";

/// What kind of program comes out, which decides where it stands in the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container image: `<target>/rootfs/bin/<name>`, with its manifest `<target>/dapp.json`.
    Dapp,
    /// An executable: `<target>/<name>`.
    Program,
}

/// How one source is built. See `docs/formats/builder.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Dapp or program.
    pub kind: Kind,
    /// The cargo package.
    pub package: String,
    /// The package's binary that is released.
    pub bin: String,
    /// The name under which the binary is released.
    pub name: ProgramName,
    /// A dapp's manifest, as a path in the source.
    pub manifest: String,
    /// What to build for, in the source's order.
    pub targets: Vec<Target>,
    /// Cargo features, beside the package's defaults.
    pub features: Vec<String>,
    /// Whether debug information is made and kept, beside the release.
    pub debug_info: bool,
    /// For the recipe nix: the `.nix` file; without it the source is a flake.
    pub nix_file: Option<String>,
    /// For the recipe nix: the attribute of the file or flake.
    pub nix_attribute: Option<String>,
}

/// Which recipe a source asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipeChoice {
    /// Vendored crates in our own sandbox.
    #[default]
    Cargo,
    /// A derivation in Nix's.
    Nix,
}

impl RecipeChoice {
    /// What the extracted source at `root` asks for.
    pub fn read(root: &Path) -> Result<Self, BuildError> {
        Ok(match read_text(root, PROJECT_FILE)? {
            Some(text) => parse::<ProjectFile>(PROJECT_FILE, &text)?.release.recipe,
            None => Self::default(),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectFile {
    release: ReleaseTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "kebab-case")]
struct ReleaseTable {
    kind: Option<Kind>,
    name: Option<ProgramName>,
    package: Option<String>,
    bin: Option<String>,
    manifest: Option<String>,
    targets: Option<Vec<Target>>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    debug_info: bool,
    #[serde(default)]
    recipe: RecipeChoice,
    nix_file: Option<String>,
    nix_attribute: Option<String>,
}

/// The parts of a `Cargo.toml` from which the package can be concluded.
#[derive(Debug, Default, Deserialize)]
struct CargoToml {
    package: Option<CargoPackage>,
    workspace: Option<CargoWorkspace>,
    #[serde(default)]
    bin: Vec<CargoBin>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CargoPackage {
    name: String,
    default_run: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CargoWorkspace {
    #[serde(default)]
    default_members: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct CargoBin {
    name: Option<String>,
}

impl Project {
    /// Reads the extracted source at `root`. The released program is called `name`; if that is left open, as
    /// `instar.toml` says, or like the binary.
    pub fn read(root: &Path, name: Option<&ProgramName>) -> Result<Self, BuildError> {
        let table = match read_text(root, PROJECT_FILE)? {
            Some(text) => parse::<ProjectFile>(PROJECT_FILE, &text)?.release,
            None => ReleaseTable::default(),
        };
        let (package, bin) = match (table.package, table.bin) {
            (Some(package), Some(bin)) => (package, bin),
            (Some(package), None) => (package.clone(), package),
            // Nix knows its own packages; only the program in the output has to be named.
            (None, Some(bin)) if table.recipe == RecipeChoice::Nix => (bin.clone(), bin),
            (None, bin) => {
                let (package, default_bin) = conclude_package(root)?;
                (package, bin.unwrap_or(default_bin))
            }
        };
        for given in [&package, &bin].into_iter().chain(&table.features) {
            check_cargo_name(given)?;
        }
        for given in [&table.nix_file, &table.nix_attribute]
            .into_iter()
            .flatten()
        {
            check_nix_name(given)?;
        }
        let name = match (name, table.name) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => name,
            (None, None) => ProgramName::new(bin.as_str()).map_err(|_| {
                let why = format!("the binary's name {bin:?} can't be a release's; say `name = …`");
                project(PROJECT_FILE, why)
            })?,
        };
        let manifest = table.manifest.unwrap_or_else(|| "dapp.json".into());
        let kind = match table.kind {
            Some(kind) => kind,
            None if read_file(root, &manifest, MAX_PROJECT_BYTES)?.is_some() => Kind::Dapp,
            None => Kind::Program,
        };
        let default_target = || Target::new(DEFAULT_TARGET).map(|only| vec![only]);
        let targets = table.targets.map_or_else(default_target, Ok)?;
        if targets.is_empty() || targets.len() > MAX_TARGETS {
            let why = format!(
                "`targets` names {}, 1 to {MAX_TARGETS} are allowed",
                targets.len()
            );
            return Err(project(PROJECT_FILE, why));
        }
        Ok(Self {
            kind,
            package,
            bin,
            name,
            manifest,
            targets,
            features: table.features,
            debug_info: table.debug_info,
            nix_file: table.nix_file,
            nix_attribute: table.nix_attribute,
        })
    }
}

/// A target is a triple, or a triple, a dot and a processor that is compiled for: `x86_64-unknown-linux-gnu.x86-64-v3`.
pub(crate) fn triple_and_cpu(target: &Target) -> (String, Option<String>) {
    match target.as_str().split_once('.') {
        Some((triple, cpu)) => (triple.to_owned(), Some(cpu.to_owned())),
        None => (target.to_string(), None),
    }
}

/// The package at the root, or the only default member of a workspace, and its binary.
fn conclude_package(root: &Path) -> Result<(String, String), BuildError> {
    let mut at = "Cargo.toml".to_owned();
    let mut cargo = cargo_toml(root, &at)?;
    if cargo.package.is_none() {
        let members = cargo
            .workspace
            .map(|w| w.default_members)
            .unwrap_or_default();
        let [only] = members.as_slice() else {
            let why = "it has no package and not exactly one default member; name the package in instar.toml";
            return Err(project(at, why));
        };
        at = format!("{}/Cargo.toml", only.trim_end_matches('/'));
        cargo = cargo_toml(root, &at)?;
    }
    let package = cargo
        .package
        .ok_or_else(|| project(&at, "it has no package"))?;
    let named: Vec<&String> = cargo.bin.iter().filter_map(|b| b.name.as_ref()).collect();
    let bin = match (&package.default_run, named.as_slice()) {
        (Some(run), _) => run.clone(),
        (None, [only]) => (*only).clone(),
        (None, _) => package.name.clone(),
    };
    Ok((package.name, bin))
}

fn cargo_toml(root: &Path, at: &str) -> Result<CargoToml, BuildError> {
    let text = read_text(root, at)?.ok_or_else(|| project(at, "there is no such file"))?;
    parse(at, &text)
}

fn parse<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<T, BuildError> {
    toml::from_str(text).map_err(|why| project(file, why.to_string()))
}

/// Package, binary and feature names become arguments of cargo, so they must not look like options or paths.
fn check_cargo_name(name: &str) -> Result<(), BuildError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/');
    let ok = name.len() <= 128
        && name
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(plain);
    if ok {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(project(
        PROJECT_FILE,
        format!("{shown:?} is not a name that cargo would take"),
    ))
}

/// A path inside the source, or an attribute's name: both become arguments.
fn check_nix_name(name: &str) -> Result<(), BuildError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    let inside = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if name.len() <= 255 && inside && !name.starts_with('-') && name.bytes().all(plain) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    let why = format!("{shown:?} is no path inside the source, and no attribute's name");
    Err(project(PROJECT_FILE, why))
}

pub(crate) fn read_text(root: &Path, path: &str) -> Result<Option<String>, BuildError> {
    let Some(bytes) = read_file(root, path, MAX_PROJECT_BYTES)? else {
        return Ok(None);
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| project(path, "it is not UTF-8"))
}

/// Reads a plain file of the source; nothing if there is none. No symbolic link is followed, so a source can't make us
/// read what lies beside it.
pub(crate) fn read_file(root: &Path, path: &str, max: u64) -> Result<Option<Vec<u8>>, BuildError> {
    let mut at = root.to_owned();
    for part in Path::new(path).components() {
        let Component::Normal(part) = part else {
            return Err(project(path, "it is not a path inside the source"));
        };
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_symlink() => {
                return Err(project(path, "it is, or lies behind, a symbolic link"));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).at("can't look at", &at),
        }
    }
    if !at.is_file() {
        return Err(project(path, "it is not a plain file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(&at).at("can't open", &at)?;
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .at("can't read", &at)?;
    if bytes.len() as u64 > max {
        return Err(BuildError::TooLarge {
            what: format!("{path} of the source"),
            limit: max,
        });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let at = dir.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        }
        dir
    }

    fn name() -> ProgramName {
        ProgramName::new("coin").unwrap()
    }

    #[test]
    fn defaults_come_from_cargo() {
        let dir = source(&[
            ("Cargo.toml", "[package]\nname = \"coin-dapp\"\n"),
            ("dapp.json", "{}"),
        ]);
        let project = Project::read(dir.path(), Some(&name())).unwrap();
        assert_eq!(
            (project.kind, project.package.as_str(), project.bin.as_str()),
            (Kind::Dapp, "coin-dapp", "coin-dapp")
        );
        assert_eq!(project.targets[0].as_str(), DEFAULT_TARGET);
    }

    #[test]
    fn a_name_comes_from_the_request_the_file_or_the_binary() {
        let dir = source(&[("Cargo.toml", "[package]\nname = \"tool\"\n")]);
        let read = |name: Option<&ProgramName>| {
            Project::read(dir.path(), name).map(|p| p.name.to_string())
        };
        assert_eq!(read(Some(&name())).unwrap(), "coin");
        assert_eq!(read(None).unwrap(), "tool");
        fs::write(
            dir.path().join(PROJECT_FILE),
            "[release]\nname = \"other\"\n",
        )
        .unwrap();
        assert_eq!(read(None).unwrap(), "other");
        fs::write(
            dir.path().join(PROJECT_FILE),
            "[release]\nbin = \"my_tool\"\n",
        )
        .unwrap();
        assert!(read(None).unwrap_err().to_string().contains("name ="));
    }

    #[test]
    fn a_target_may_name_a_processor() {
        let split = |text: &str| {
            let (triple, cpu) = triple_and_cpu(&Target::new(text).unwrap());
            (triple, cpu)
        };
        assert_eq!(
            split("x86_64-unknown-linux-gnu.x86-64-v3"),
            ("x86_64-unknown-linux-gnu".into(), Some("x86-64-v3".into()))
        );
        assert_eq!(split(DEFAULT_TARGET), (DEFAULT_TARGET.into(), None));
    }

    #[test]
    fn a_workspace_with_one_default_member_needs_no_project_file() {
        let dir = source(&[
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"a\", \"b\"]\ndefault-members = [\"a\"]\n",
            ),
            (
                "a/Cargo.toml",
                "[package]\nname = \"a-pkg\"\n[[bin]]\nname = \"a\"\n",
            ),
        ]);
        let project = Project::read(dir.path(), Some(&name())).unwrap();
        assert_eq!(
            (project.kind, project.package.as_str(), project.bin.as_str()),
            (Kind::Program, "a-pkg", "a")
        );
    }

    #[test]
    fn unknown_keys_options_and_links_are_refused() {
        let unknown = source(&[
            ("Cargo.toml", "[package]\nname = \"x\"\n"),
            ("instar.toml", "[release]\nkindd = \"dapp\"\n"),
        ]);
        assert!(
            Project::read(unknown.path(), Some(&name()))
                .unwrap_err()
                .to_string()
                .contains("kindd")
        );
        let option = source(&[("instar.toml", "[release]\npackage = \"--config=x\"\n")]);
        assert!(Project::read(option.path(), Some(&name())).is_err());
        let link = source(&[("x", "")]);
        std::os::unix::fs::symlink("/etc/passwd", link.path().join("instar.toml")).unwrap();
        assert!(
            Project::read(link.path(), Some(&name()))
                .unwrap_err()
                .to_string()
                .contains("symbolic link")
        );
        assert!(read_file(link.path(), "../x", 10).is_err());
    }
}
