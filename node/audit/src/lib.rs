//! Verify a whole chain from a clone, and the chain of custody of a release
