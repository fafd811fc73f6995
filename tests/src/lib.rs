//! Tests across rooms: support, end to end, interop, faults, bench
