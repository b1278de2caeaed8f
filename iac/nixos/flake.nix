{
  description = "A devbox: NixOS on EC2, reached through Session Manager";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    home-manager = {
      url = "github:nix-community/home-manager";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    { nixpkgs, home-manager, ... }:
    let
      box =
        system:
        nixpkgs.lib.nixosSystem {
          inherit system;
          modules = [
            "${nixpkgs}/nixos/modules/virtualisation/amazon-image.nix"
            home-manager.nixosModules.home-manager
            ./box.nix
          ];
        };
    in
    {
      nixosModules.box = ./box.nix;
      nixosConfigurations = {
        box = box "x86_64-linux";
        box-arm64 = box "aarch64-linux";
      };
    };
}
