# What every box has: the agent, a multiplexer that outlives a session, and tools to work with.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.devbox;
in
{
  options.devbox = {
    user = lib.mkOption {
      type = lib.types.str;
      default = "dev";
      description = "The user that works here; give the same name to `devboxctl` (defaults.user).";
    };
    packages = lib.mkOption {
      type = lib.types.listOf lib.types.package;
      default = [ ];
      description = "Further packages for the user.";
    };
    claudeCode = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Install Claude Code (unfree).";
    };
  };

  config = {
    services.amazon-ssm-agent.enable = true;

    # sshd listens on loopback: ssh comes through Session Manager, nothing comes through the network.
    services.openssh = {
      enable = true;
      openFirewall = false;
      listenAddresses = [
        {
          addr = "127.0.0.1";
          port = 22;
        }
      ];
      settings.PasswordAuthentication = false;
    };
    networking.firewall.enable = true;

    # A box saves and starts as another instance: its host keys and its root stay its own.
    services.cloud-init.enable = false;
    boot.growPartition = true;

    # What a user started goes on without a session, and a shutdown waits for the mux to write.
    users.users.${cfg.user} = {
      isNormalUser = true;
      extraGroups = [ "wheel" ];
      linger = true;
    };
    security.sudo.wheelNeedsPassword = false;

    nixpkgs.config.allowUnfreePredicate = pkg: lib.getName pkg == "claude-code";
    environment.systemPackages =
      with pkgs;
      [
        zellij
        tmux
        git
        python3
        ripgrep
        fd
        jq
        curl
        rsync
        gnumake
        gcc
      ]
      ++ lib.optional cfg.claudeCode pkgs.claude-code;

    programs.direnv.enable = true;
    nix.settings.experimental-features = [
      "nix-command"
      "flakes"
    ];

    home-manager.useGlobalPkgs = true;
    home-manager.users.${cfg.user} = {
      home.stateVersion = "24.11";
      home.packages = cfg.packages;
      programs.bash.enable = true;
      programs.zellij.enable = true;
    };

    system.stateVersion = "24.11";
  };
}
