//! Supervise one program: stage, swap, probation, revert
