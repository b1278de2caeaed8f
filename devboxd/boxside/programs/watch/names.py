"""Programs by name: what kind of work each is."""

import os

SHELLS = ("bash", "zsh", "fish", "sh", "dash", "ksh", "tcsh", "csh", "nu", "elvish", "xonsh")
EDITORS = ("vim", "nvim", "vi", "nano", "emacs", "hx", "micro", "kak", "joe")
IDES = (".vscode-server", ".cursor-server", "code-server", ".cache/JetBrains")  # in their command lines
# Never work by themselves: they show, carry or wait.
NEVER = (
    "sshd", "sshd-session", "ssh", "ssh-agent", "gpg-agent", "amazon-ssm-agen", "ssm-agent-worke", "ssm-session-wor", "ssm-document-wo",
    "tmux: server", "tmux: client", "tmux", "zellij", "screen", "SCREEN", "mosh-server", "login", "su", "sudo", "systemd", "(sd-pam)",
    "dbus-daemon", "dbus-broker", "less", "more", "man", "tail", "top", "htop", "btop", "atop", "watch", "nvidia-smi", "nvtop", "journalctl",
    "gitstatusd", "script", "expect", "cat", "ncdu", "containerd-shim", "runc", "tini", "pause", "devboxd", "podman", "conmon",
)  # fmt: skip
# Whose doings, and those of all below them, are the system's own.
UPDATES = (
    "unattended-upgr", "apt.systemd.dai", "dnf-automatic", "snapd", "packagekitd", "logrotate", "run-parts", "anacron", "mandb", "man-db",
    "updatedb", "updatedb.mlocat", "fstrim", "needrestart", "systemd-tmpfile", "amazon-ssm-agen", "ssm-agent-worke", "fwupd", "auditd",
)  # fmt: skip
AGENTS = (
    "claude", "codex", "aider", "gemini", "opencode", "goose", "amp", "cursor-agent", "copilot", "crush", "qwen", "droid", "auggie", "cline",
)  # fmt: skip
FINITE = (
    "pytest", "py.test", "tox", "nox", "unittest", "cargo", "rustc", "make", "gmake", "ninja", "cmake", "ctest", "meson", "scons", "bear",
    "gcc", "g++", "cc", "c++", "cc1", "cc1plus", "clang", "clang++", "ld", "ld.lld", "lld", "mold", "as", "go", "javac", "mvn", "gradlew", "sbt",
    "npm", "yarn", "pnpm", "bun", "deno", "jest", "vitest", "mocha", "playwright", "cypress", "tsc", "webpack", "esbuild", "rollup", "docker-buildx", "buildah", "terraform",
    "tofu", "pulumi", "cdk", "ansible-playbook", "packer", "nix", "nix-build", "nixos-rebuild", "apt", "apt-get", "dpkg", "dnf", "yum",
    "pip", "pip3", "uv", "poetry", "pdm", "conda", "mamba", "torchrun", "accelerate", "deepspeed", "ffmpeg", "latexmk", "pdflatex", "xelatex",
    "git", "dd", "tar", "gzip", "pigz", "xz", "zstd", "zip", "unzip", "pg_dump", "pg_restore", "mysqldump", "snakemake", "nextflow", "dvc", "bats",
    "rspec", "rake", "bundle", "phpunit", "composer", "mix", "cabal", "stack", "ghc", "swift", "dotnet", "msbuild", "cython", "mypy", "ruff",
    "fsck", "mkfs", "e2fsck", "resize2fs", "restic", "borg",
)  # fmt: skip
TRANSFERS = (
    "scp",
    "sftp",
    "sftp-server",
    "rsync",
    "rclone",
    "curl",
    "wget",
    "aria2c",
    "aws",
    "s5cmd",
    "gsutil",
    "gcloud",
    "azcopy",
    "croc",
    "git-remote-http",
    "git-remote-https",
)
KERNELS = ("ipykernel_launcher", "ipykernel", "colab_kernel_launcher", "IRkernel", "IJulia")
DEBUGGERS = ("gdb", "lldb", "dlv", "rr", "pdb", "debugpy", "ipdb", "cgdb", "pudb")
WATCHES = (
    "--watch", "--watchAll", "--watch-all", "-w", "watch", "dev", "serve", "server", "start", "--reload", "runserver", "--serve", "--follow", "storybook",
)  # fmt: skip
INTERPRETERS = (
    "python",
    "node",
    "ruby",
    "perl",
    "java",
    "bun",
    "deno",
    "php",
    "env",
    "sh",
    "bash",
    "Rscript",
    "julia",
)


def kind_of(argv: "list[str]", name: str) -> "str | None":
    """``agent``, ``finite``, ``transfer``, ``kernel``, ``debugger``, ``server``; None: not known by name."""
    words = _named(argv) or [name]
    for word in words:
        if word in DEBUGGERS:
            return "debugger"
        if word in KERNELS:
            return "kernel"
        if word in AGENTS:
            return "agent"
        if word in TRANSFERS:
            return "transfer"
        if word in FINITE:
            rest = argv[1:] if argv else []
            return "server" if any(one in WATCHES for one in rest) else "finite"
    return None


def _named(argv: "list[str]") -> "list[str]":
    """The program, and behind an interpreter the script or module."""
    if not argv:
        return []
    found = [_base(argv[0])]
    if not found[0].startswith(INTERPRETERS):
        return found
    rest = iter(argv[1:8])
    for word in rest:
        if word == "-m":
            found.append(next(rest, "").partition(".")[0])
            break
        if word == "-c":
            break
        if not word.startswith("-"):
            found.append(_base(word))
            break
    return found


def _base(word: str) -> str:
    base = os.path.basename(word.split(" ")[0])
    for ending in (".py", ".js", ".mjs", ".cjs"):
        if base.endswith(ending):
            base = base[: -len(ending)]
    return base
