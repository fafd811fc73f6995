//! Golden bytes: see `tests/vectors/codec.txt`.
