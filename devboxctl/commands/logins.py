"""login: a page to visit, a code to type, or credentials to lend."""

from __future__ import annotations

import os
import sys

from devboxctl import ask, show
from devboxctl.fast import reply
from devboxctl.options import settings
from devboxd.api import routes, wire
from devboxd.errors import Kind, exit_status


def renew(*, no_browser: bool) -> int:
    """Log in; returns the exit status."""
    request = wire.LoginRequest(profile=settings.profile, region=settings.region)
    failed = _once(request, no_browser)
    if isinstance(failed, str):
        request.code = _code(failed)
        failed = _once(request, no_browser)
    if isinstance(failed, str) or failed is None:
        return 0
    if failed.code == "not-sso" and _may_lend():
        return lend()
    return failed.exit_status if settings.json else reply.show_failure(show.plain(failed))


def lend() -> int:
    """Let the daemon use the AWS credentials of this shell; returns the exit status.

    Raises:
        UsageError: it has none.
    """
    environ = os.environ
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        raise reply.UsageError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set in this shell")
    request = wire.LendRequest(
        profile=settings.profile,
        region=settings.region,
        access_key_id=key,
        secret_access_key=secret,
        session_token=environ.get("AWS_SESSION_TOKEN") or environ.get("AWS_SECURITY_TOKEN"),
        expires=environ.get("AWS_CREDENTIAL_EXPIRATION"),
    )
    found = ask.ask(routes.LEND, request)
    if settings.json:
        show.print_json(found)
    else:
        show.say(
            f"the daemon is {found.kind} {found.name} in account {found.account} now, for profile {found.profile}"
        )
        show.say("it keeps these credentials in memory only, until it ends")
    return 0


def _once(request: wire.LoginRequest, no_browser: bool) -> wire.Failure | str | None:
    """Ask, and show what comes; returns what went wrong, or the question for a code, or None: it is done."""
    for step in ask.ask_lines(routes.LOGIN, request):
        if settings.json:
            show.print_json(step, line=True)
        if step.state == "failed":
            return step.failure or wire.Failure(
                "login-failed",
                step.text or "the login failed",
                None,
                False,
                exit_status(Kind.LOGIN),
                Kind.LOGIN,
            )
        if step.state == "code":
            return step.text
        if settings.json:
            continue
        if step.text:
            show.say(step.text)
        if step.state == "open" and step.url:
            show.say(f"open: {step.url}")
            if step.code:
                show.say(f"code: {step.code}")
            if not no_browser:
                _open(step.url)
    return None


def _code(question: str) -> str:
    """The code of an MFA device: typed here without an echo, or from standard input. Never an argument: ps shows those.

    Raises:
        UsageError: there is none.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        import getpass

        try:
            code = getpass.getpass(f"{question}: ").strip()
        except EOFError:
            code = ""
    else:
        code = sys.stdin.readline().strip() if sys.stdin is not None else ""
    if not code:
        raise reply.UsageError(
            "this profile wants the code of an MFA device, and none came",
            "run it on a terminal, or give the code on standard input",
        )
    return code


def _may_lend() -> bool:
    """Ask whether the daemon may have the credentials of this shell, where there are some and somebody to ask."""
    if settings.json or not (os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")):
        return False
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(
        "This shell has AWS credentials. May devboxd use them? It keeps them in memory only. [y/N] "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _open(url: str) -> None:
    """Show the page in a browser where there is one. Only web addresses: the text came over a socket."""
    if not url.startswith("https://"):
        return
    import webbrowser

    webbrowser.open(url)
