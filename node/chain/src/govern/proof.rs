//! Proofs of possession: whoever registers a key shows that he has its secret half, for this chain, purpose and
//! operator alone.

use instar_attest::{ChainId, PublicKey, Purpose};

/// What a proof begins with. No other signed byte string of any purpose begins so.
pub const KEY_PROOF_DOMAIN: &[u8] = b"instar/key-proof/v1\0";

/// The bytes that a new key signs: `domain ‖ chain ‖ key ‖ purpose (1 consensus, 2 lane, 3 builder, 4 account) ‖
/// operator's name`. The name stands last, so nothing has to say where it ends.
pub fn key_proof_bytes(
    chain: &ChainId,
    key: &PublicKey,
    purpose: Purpose,
    operator: &str,
) -> Vec<u8> {
    let purpose = match purpose {
        Purpose::Consensus => 1,
        Purpose::Lane => 2,
        Purpose::Builder => 3,
        Purpose::Account => 4,
    };
    [
        KEY_PROOF_DOMAIN,
        chain.as_bytes(),
        key.as_bytes(),
        &[purpose],
        operator.as_bytes(),
    ]
    .concat()
}
