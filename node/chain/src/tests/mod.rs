//! Tests of the state machine as a whole: a small world of four validators, driven block by block.

mod blocks;
mod bounds;
mod dapps;
mod determinism;
mod evidence;
mod forks;
mod gates;
mod govern;
mod govern_random;
mod merge_motions;
mod merges;
mod module;
mod motions;
mod operators;
mod rollout;
mod rounds;
mod under_way;
mod upgrades;
mod vectors;
mod world;
