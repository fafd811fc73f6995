//! Run one command in a sealed container, by a single-threaded helper
