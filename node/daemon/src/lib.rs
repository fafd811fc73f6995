//! The node: where the adapters meet
