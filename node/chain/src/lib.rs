//! The state machine, pure: operators, devices, policy, build rounds, proposals and tally
