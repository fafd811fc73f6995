//! Support for tests that cross rooms.
