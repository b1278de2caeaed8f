"""Programs by name: what kind of work each is."""

import os
import re

SHELLS = ("bash", "zsh", "fish", "sh", "dash", "ksh", "tcsh", "csh", "nu", "elvish", "xonsh")
EDITORS = (
    "vim", "nvim", "vi", "nano", "emacs", "hx", "micro", "kak", "joe", "editor", "sensible-editor", "view", "vimdiff", "emacsclient", "pico", "ed",
)  # fmt: skip
PAGERS = ("less", "more", "pager", "most", "bat", "batcat", "moar", "ov")
IDES = (
    ".vscode-server", ".cursor-server", "code-server", ".cache/JetBrains", ".windsurf-server", ".vscodium-server", ".openvscode-server",
    ".kiro-server", ".trae-server", ".positron-server", ".antigravity-server", ".zed_server",
)  # fmt: skip  # in their command lines
# Never work by themselves: they show, carry or wait.
NEVER = (
    *PAGERS, "sshd", "sshd-session", "ssh", "ssh-agent", "gpg-agent", "amazon-ssm-agen", "ssm-agent-worke", "ssm-session-wor", "ssm-document-wo",
    "tmux: server", "tmux: client", "tmux", "zellij", "screen", "SCREEN", "mosh-server", "login", "su", "sudo", "systemd", "(sd-pam)",
    "dbus-daemon", "dbus-broker", "man", "tail", "top", "htop", "btop", "atop", "watch", "nvidia-smi", "nvtop", "journalctl",
    "gitstatusd", "script", "expect", "cat", "ncdu", "containerd-shim", "runc", "tini", "pause", "devboxd", "podman", "conmon",
)  # fmt: skip
# Whose doings, and those of all below them, are the system's own.
UPDATES = (
    "unattended-upgr", "apt.systemd.dai", "dnf-automatic", "snapd", "packagekitd", "logrotate", "run-parts", "anacron", "mandb", "man-db",
    "updatedb", "updatedb.mlocat", "fstrim", "needrestart", "systemd-tmpfile", "amazon-ssm-agen", "ssm-agent-worke", "fwupd", "auditd",
)  # fmt: skip
AGENTS = (
    "claude", "codex", "aider", "gemini", "opencode", "goose", "amp", "cursor-agent", "copilot", "crush", "qwen", "droid", "auggie", "cline",
    "q", "qchat", "kiro-cli", "kiro-cli-chat", "openhands", "plandex",
)  # fmt: skip
# The main classes are those of tools whose start scripts become java.
FINITE = (
    "pytest", "py.test", "tox", "nox", "unittest", "cargo", "rustc", "make", "gmake", "ninja", "cmake", "ctest", "meson", "scons", "bear",
    "gcc", "g++", "cc", "c++", "cc1", "cc1plus", "clang", "clang++", "ld", "ld.lld", "lld", "mold", "as", "go", "javac", "mvn", "gradlew", "sbt",
    "npm", "yarn", "pnpm", "bun", "deno", "jest", "vitest", "mocha", "playwright", "cypress", "tsc", "webpack", "esbuild", "rollup", "docker-buildx", "buildah", "terraform",
    "tofu", "pulumi", "cdk", "ansible-playbook", "packer", "nix", "nix-build", "nixos-rebuild", "apt", "apt-get", "dpkg", "dnf", "yum",
    "pip", "pip3", "uv", "poetry", "pdm", "conda", "mamba", "torchrun", "accelerate", "deepspeed", "ffmpeg", "latexmk", "pdflatex", "xelatex",
    "git", "dd", "tar", "gzip", "pigz", "xz", "zstd", "zip", "unzip", "pg_dump", "pg_restore", "mysqldump", "snakemake", "nextflow", "dvc", "bats",
    "rspec", "rake", "bundle", "phpunit", "composer", "mix", "cabal", "stack", "ghc", "swift", "dotnet", "msbuild", "cython", "mypy", "ruff",
    "fsck", "mkfs", "e2fsck", "resize2fs", "restic", "borg", "bazel", "bazelisk", "buck2", "gradle", "ant", "just", "hatch", "pre-commit",
    "npx", "bunx", "uvx", "pipenv", "pixi", "Rscript", "coverage", "cProfile", "kernprof", "memray", "nosetests", "behave", "ava", "prove",
    "gradle-wrapper", "org.gradle.wrapper.GradleWrapperMain", "org.gradle.launcher.GradleMain", "sbt-launch",
    "org.codehaus.plexus.classworlds.launcher.Launcher", "org.apache.tools.ant.launch.Launcher",
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
# Programs that end when what they run ends, and those that build before they run it.
RUNNERS = (
    "npm", "npx", "yarn", "pnpm", "bun", "bunx", "deno", "uv", "uvx", "poetry", "pdm", "pipenv", "pixi", "hatch", "conda", "mamba", "bundle",
    "composer", "coverage", "cProfile", "kernprof", "memray",
)  # fmt: skip
BUILDERS = (
    "cargo", "go", "make", "gmake", "just", "mix", "dotnet", "mvn", "gradlew", "gradle", "sbt", "rake", "gradle-wrapper", "sbt-launch",
    "org.gradle.wrapper.GradleWrapperMain", "org.gradle.launcher.GradleMain", "org.codehaus.plexus.classworlds.launcher.Launcher",
)  # fmt: skip
# What of its arguments says that a program does not end by itself: an option, -w, or a word to those that know such words.
WATCHES = (
    "--watch", "--watchAll", "--watch-all", "--reload", "--serve", "--follow", "fsmonitor--daemon", "credential-cache--daemon",
)  # fmt: skip
WATCHERS = ("tsc", "webpack", "rollup", "mocha", "vitest")
SERVES = (
    "watch", "dev", "serve", "server", "start", "runserver", "storybook", "bootRun", "quarkusDev", "spring-boot:run", "quarkus:dev", "phx.server",
)  # fmt: skip
SERVERS = (*RUNNERS, *BUILDERS, *WATCHERS, "ruff", "pulumi", "cdk")
RUNS = re.compile("run|serve|dev|start")
TESTS = re.compile("(?<!la)test|bench|check|verify|train|e2e|(^|[^a-z])(spec|build|lint|ci)")
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
# Options of interpreters whose argument is the next word.
TAKES = (
    "-X", "-W", "-r", "--require", "--import", "--loader", "--experimental-loader", "-o",
    "-cp", "-classpath", "--class-path", "--module-path", "--add-modules", "--add-opens",
)  # fmt: skip


def kind_of(argv: "list[str]", name: str) -> "str | None":
    """``agent``, ``finite``, ``transfer``, ``kernel``, ``debugger``, ``server``; None: not known by name."""
    argv = _split(argv)
    for word in _named(argv) or [name]:
        if word in DEBUGGERS:
            return "debugger"
        if word in KERNELS:
            return "kernel"
        if word in AGENTS:
            return "agent"
        if word in TRANSFERS:
            return "transfer"
        if word in FINITE:
            return "server" if _watches(word, argv[1:]) else "finite"
    return None


def _watches(program: str, rest: "list[str]") -> bool:
    """Whether it waits for changes or serves. A folder or a branch may be called so, too: in doubt it ends by itself."""
    for word in rest:
        if word in WATCHES or word.startswith("--service=") or (word == "-w" and program in WATCHERS):
            return True
    return program in SERVERS and not tests(rest) and any(word in SERVES for word in rest)


def is_runner(argv: "list[str]", name: str) -> bool:
    """Whether all that it does now is to run something else: a server, for all that it says."""
    argv = _split(argv)
    program = next((word for word in _named(argv) or [name] if word in FINITE), "")
    if tests(argv[1:]):
        return False
    return program in RUNNERS or (program in BUILDERS and any(RUNS.search(word.lower()) for word in argv[1:]))


def tests(words: "list[str]") -> bool:
    """Whether these words speak of something that tests, builds or trains."""
    return any(TESTS.search(os.path.basename(word).lower()) for word in words)


def _split(argv: "list[str]") -> "list[str]":
    """npm writes its title over its arguments: one word with blanks."""
    return argv[0].split(" ") if len(argv) == 1 else argv


def _named(argv: "list[str]") -> "list[str]":
    """The program, and behind an interpreter the script or module."""
    if not argv:
        return []
    found = [_base(argv[0])]
    rest = iter(argv[1:] if found[0].startswith(INTERPRETERS) else [])
    for word in rest:
        if word in TAKES:
            next(rest, "")
        elif word == "-m":
            found.append(next(rest, "").partition(".")[0])
            break
        elif word == "-c":
            break
        elif not word.startswith("-"):
            found.append(_base(word))
            break
    if found[0] == "R" and any(word == "-f" or word.startswith("--file=") for word in argv):
        found.append("Rscript")  # which becomes this
    return found


def _base(word: str) -> str:
    base = os.path.basename(word.split(" ")[0])
    for ending in (".py", ".js", ".mjs", ".cjs", ".jar"):
        if base.endswith(ending):
            base = base[: -len(ending)]
    return base
