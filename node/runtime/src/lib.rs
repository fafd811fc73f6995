//! Dapps: the ABI, images from CIDs, budgets
