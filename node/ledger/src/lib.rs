//! Entries, lanes, blocks, certificates, the git store and sync packs
