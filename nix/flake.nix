# Instar and a development shell. Needs nixpkgs, which Instar's CI does not fetch: see README.md.
#
#   nix develop ./nix        Rust, git, a C compiler and what the cross-checks use
#   nix build ./nix          the program `instar`
{
  description = "Instar: release tooling and a node for baby blockchains";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "instar";
          version = "0.1.0";
          src = ./..;
          cargoLock.lockFile = ../Cargo.lock;
          cargoBuildFlags = [ "--package" "instar" ];
          # The tests make sandboxes, which Nix's own does not allow; CI runs them.
          doCheck = false;
        };
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [ cargo rustc clippy rustfmt git openssh jq nodejs python3 ];
        };
      });
    };
}
