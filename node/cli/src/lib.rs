//! The `instar` program as a library: every verb is thin, the rooms do the work.
//!
//! The program itself is `main.rs`, a single call, so that a release that changes only its name is linked anew and not
//! compiled anew.

pub mod client;
pub mod demo;
mod dht;
pub mod embedded;
mod exit;
pub mod founding;
mod joining;
mod light;
mod mother;
mod release;
mod store;
mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Release tooling and a node for baby blockchains: chains that upgrade themselves.
#[derive(Parser)]
#[command(name = "instar", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Shown below `--help`; the guide says the same.
const EXIT_CODES: &str = "Exit codes: 0 done and true · 1 it failed or the answer is no · 2 wrong use of the command line · 3 it could not be told (`chain verify`).";

#[derive(Subcommand)]
enum Verb {
    /// Run a whole baby chain on this machine and upgrade it, end to end
    Demo(demo::Args),
    /// Look at a chain
    #[command(subcommand)]
    Chain(verbs::chain::Verb),
    /// Run a node
    #[command(subcommand)]
    Node(verbs::node::Verb),
    /// Supervise a node's binary: swap, probation, revert
    #[command(subcommand)]
    Upgrader(verbs::upgrader::Verb),
    /// Sign an entry and send it to a node
    Send(verbs::send::Args),
    /// Show what became of an entry
    Receipt(verbs::receipt::Args),
    /// Ask a dapp
    #[command(subcommand)]
    Dapp(verbs::dapp::Verb),
    /// Build a release from a commit, twice, and compare
    Build(verbs::build::Args),
    /// Sign what was built: for a build round on the ledger, or for anybody
    Attest(verbs::attest::Args),
    /// Check a release's bundles against a policy, offline, or rebuild it and compare
    Verify(verbs::verify::Args),
    /// Check a release policy, or write it as an in-toto layout
    #[command(subcommand)]
    Policy(verbs::policy::Verb),
    /// Keep a file, folder or stream as IPFS blocks, and print its content address
    Add(verbs::add::Args),
    /// Fetch content by its address, from anybody, trusting nobody
    Get(verbs::get::Args),
    /// Look after the local block store: space, integrity, pins, archives
    #[command(subcommand)]
    Store(verbs::store::Verb),
    /// Make and apply deltas between releases
    #[command(subcommand)]
    Delta(verbs::delta::Verb),
    /// Keep content, or a release, at nodes and Kubo nodes
    Pin(verbs::pin::Args),
    /// Open a build round, or propose the release that a round agreed on
    Propose(verbs::propose::Args),
    /// Vote on a proposal with a node's account
    Vote(verbs::vote::Args),
    /// Look at upgrades
    #[command(subcommand)]
    Upgrade(verbs::upgrade::Verb),
    /// Check a release's way from source commit to activation, offline
    Audit(verbs::audit::Args),
    /// Look at validators, and move that one comes, goes or gets another power
    #[command(subcommand)]
    Validator(verbs::govern::validator::Verb),
    /// Look at operators, and move that one comes or goes
    #[command(subcommand)]
    Operator(verbs::govern::operator::Verb),
    /// Look at devices, and move that one comes or goes
    #[command(subcommand)]
    Device(verbs::govern::device::Verb),
    /// Look at motions, vote on them, and make them
    #[command(subcommand)]
    Motion(verbs::govern::motion::Verb),
    /// Make and show keys
    #[command(subcommand)]
    Key(verbs::key::Verb),
    /// Say what this machine can do, and what is missing
    Doctor(verbs::doctor::Args),
}

/// Runs the program. `codename` is what a person sees change in `chain status` when the node's binary changes.
pub fn main(codename: &str) -> ExitCode {
    // The sandbox's helper is this same program; it must come before anything that starts a thread.
    instar_sandbox::init();
    let cli = Cli::parse();
    let result = match cli.verb {
        Verb::Demo(args) => demo::run(&args),
        Verb::Chain(verb) => verbs::chain::run(verb),
        Verb::Node(verb) => verbs::node::run(verb, codename),
        Verb::Upgrader(verb) => verbs::upgrader::run(verb),
        Verb::Send(args) => verbs::send::run(args),
        Verb::Receipt(args) => verbs::receipt::run(args),
        Verb::Dapp(verb) => verbs::dapp::run(verb),
        Verb::Build(args) => verbs::build::run(&args),
        Verb::Attest(args) => verbs::attest::run(&args),
        Verb::Verify(args) => verbs::verify::run(&args),
        Verb::Policy(verb) => verbs::policy::run(&verb),
        Verb::Add(args) => verbs::add::run(&args),
        Verb::Get(args) => verbs::get::run(&args),
        Verb::Store(verb) => verbs::store::run(verb),
        Verb::Delta(verb) => verbs::delta::run(verb),
        Verb::Pin(args) => verbs::pin::run(&args),
        Verb::Propose(args) => verbs::propose::run(&args),
        Verb::Vote(args) => verbs::vote::run(&args),
        Verb::Upgrade(verb) => verbs::upgrade::run(verb),
        Verb::Audit(args) => verbs::audit::run(&args),
        Verb::Validator(verb) => verbs::govern::validator::run(verb),
        Verb::Operator(verb) => verbs::govern::operator::run(verb),
        Verb::Device(verb) => verbs::govern::device::run(verb),
        Verb::Motion(verb) => verbs::govern::motion::run(verb),
        Verb::Key(verb) => verbs::key::run(verb),
        Verb::Doctor(args) => verbs::doctor::run(&args),
    };
    exit::code(result)
}
