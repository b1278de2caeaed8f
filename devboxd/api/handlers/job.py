"""Jobs: run, list, read."""

from __future__ import annotations

import base64

from devboxd.api import routes, wire
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import answers
from devboxd.model.job import Job
from devboxd.text import rfc3339


@answers(routes.RUN_JOB)
async def run(context: Context, asked: wire.JobRequest) -> wire.Job:
    """It has begun when this answers."""
    return _view(await context.jobs.run(asked.project, asked.command, asked.session))


@answers(routes.LIST_JOBS)
async def listed(context: Context, asked: wire.ProjectName) -> wire.JobList:
    """As the box has them now."""
    found = await context.jobs.listed(asked.project)
    return wire.JobList(asked.project, [_view(one) for one in found])


@answers(routes.READ_JOB)
async def log(context: Context, asked: wire.JobId) -> wire.JobLog:
    """A piece of its output."""
    job, begun, after, data = await context.jobs.log(asked.project, asked.job, asked.offset, asked.wait)
    return wire.JobLog(_view(job), begun, after, base64.b64encode(data).decode())


def _view(job: Job) -> wire.Job:
    return wire.Job(
        job.id, job.command, str(job.state), _time(job.since), _time(job.at), job.status, job.window, job.size
    )


def _time(at: float | None) -> str | None:
    return rfc3339(at) if at is not None else None
