//! Any bytes as what the peers of the consensus send: the first says of which kind the others are.

/// Fails where a message has two spellings. Says whether it was accepted.
pub fn run(data: &[u8]) -> bool {
    instar_consensus::fuzzing::decode(data)
}
