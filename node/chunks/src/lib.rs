//! FastCDC cutting, UnixFS DAGs and CIDs, the block store, verified traversal with bounds
