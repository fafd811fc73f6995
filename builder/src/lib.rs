//! Recipes, hermetic builds, rebuild-and-compare, SBOM, release assembly
