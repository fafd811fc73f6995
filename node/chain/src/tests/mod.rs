//! Tests of the state machine as a whole: a small world of four validators, driven block by block.

mod blocks;
mod bounds;
mod dapps;
mod determinism;
mod gates;
mod module;
mod operators;
mod rollout;
mod rounds;
mod upgrades;
mod vectors;
mod world;
