//! The gates that a bad release has to be stopped by. A test proves each of them by turning it off, and only it.

/// One gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))] // Only tests turn one off.
pub(crate) enum Gate {
    /// k distinct operators must have built the same bytes.
    BuilderThreshold,
    /// A reveal must open the commitment that came before it.
    Commitment,
    /// A reveal must come with an attestation that says the same.
    Attestation,
    /// More than two thirds of the power must have voted yes.
    Votes,
    /// More than two thirds of the power must have rehearsed it to the same root.
    Rehearsal,
    /// A rollout goes on only from healthy waves, and halts on too many reverts.
    Health,
}

/// All gates, closed unless a test has opened one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gates {
    open: Option<Gate>,
}

impl Gates {
    /// All gates hold but this one.
    #[cfg(test)]
    pub(crate) fn without(gate: Gate) -> Self {
        Self { open: Some(gate) }
    }

    /// Whether a gate holds.
    pub(crate) fn hold(self, gate: Gate) -> bool {
        self.open != Some(gate)
    }
}
