"""`dreamforge jobs`: make, list, follow, cancel and fetch jobs over the REST API."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dreamforge.jobs import JobState
from dreamforge.spec import ImageFormat
from dreamforge_cli import console, images
from dreamforge_cli.client import Client
from dreamforge_cli.exits import JOB_FAILED, WRONG_USAGE, stop
from dreamforge_cli.server import server
from dreamforge_cli.watch import watch as follow

app = typer.Typer(help="Make render jobs, follow them, fetch their images.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="The job's id.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Save the images in this folder.")]
Label = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", help="May be given more than once.")]


@app.command()
def create(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    count: Annotated[int | None, typer.Option(help="Images to render, 1 to 100.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, 1 to 150.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of a single image; the same gives the same.")] = None,
    model: Annotated[str | None, typer.Option(help="Id of the model, see `dreamforge model list`.")] = None,
    image_format: Annotated[ImageFormat | None, typer.Option("--format", help="Encoding of the images.")] = None,
    preset: Annotated[str | None, typer.Option(help="A named bundle of defaults, such as draft or quality.")] = None,
    label: Label = [],  # noqa: B006 - Typer copies it
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it has ended.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Make a job. With --watch or --out, wait for its end: exit status 1 unless it succeeded.

    Limits and defaults are the server's; what it refuses it explains.
    """
    wanted = _given(prompt=prompt, count=count, width=width, height=height, steps=steps, seed=seed)
    wanted |= _given(model_id=model, format=image_format, preset=preset, labels=_labels(label) or None)
    with server() as client:
        job = client.create({"type": "generate", **wanted})
        for warning in job.get("warnings") or []:
            console.remarks.print(f"warning: {console.harmless(_warning(warning))}")
        if watch or out:
            _finish(client, job, out, json=json)
        elif json:
            console.as_json(job)
        else:
            console.results.print(job["id"])


@app.command("list")
def list_jobs(
    status: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    label: Label = [],  # noqa: B006 - Typer copies it
    limit: Annotated[int, typer.Option(help="Jobs on a page, 1 to 200.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the next page begins, from the page before.")] = None,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    query: dict[str, Any] = {"status": status.value if status else None, "model_id": model, "label": label}
    with server() as client:
        page = client.jobs(**query, limit=limit, cursor=cursor)
    if json:
        console.as_json(page)
        return
    rows = [
        [job["id"], job["status"], f"{job['progress']:.0%}", f"{job['completed']}/{job['count']}", job["created_at"]]
        for job in page["items"]
    ]
    console.table(["ID", "STATUS", "PROGRESS", "IMAGES", "CREATED"], rows)
    if page["next_cursor"]:
        console.remarks.print(f"more: --cursor {console.harmless(page['next_cursor'])}")


@app.command()
def get(job_id: JobId, json: Json = False) -> None:
    """Show one job."""
    with server() as client:
        job = client.job(job_id)
    if json:
        console.as_json(job)
    else:
        _describe(job)


@app.command()
def watch(job_id: JobId, out: Out = None, json: Json = False) -> None:
    """Follow a job until it has ended; --json prints its events as NDJSON. Exit status 1 unless it succeeded.

    A connection that breaks is taken up again where it broke.
    """
    with server() as client:
        _finish(client, client.job(job_id), out, json=json)


@app.command()
def cancel(job_id: JobId, json: Json = False) -> None:
    """Ask for a job's end; a job that has ended stays as it is."""
    with server() as client:
        job = client.cancel(job_id)
    if json:
        console.as_json(job)
    else:
        asked = "" if JobState(job["status"]).terminal else ", cancel requested"
        console.results.print(f"{job['id']} {job['status']}{asked}")


@app.command()
def logs(
    job_id: JobId,
    tail: Annotated[int | None, typer.Option(help="Only the last lines, 1 to 10000.")] = None,
    since: Annotated[str | None, typer.Option(help="Only lines after this time (RFC 3339 with zone).")] = None,
    json: Json = False,
) -> None:
    """Show a job's log; --json prints it as NDJSON."""
    with server() as client:
        for entry in client.logs(job_id, **{k: v for k, v in {"tail": tail, "since_ts": since}.items() if v}):
            if json:
                console.as_json_line(entry)
                continue
            item = "" if entry.get("item_index") is None else f" [{entry['item_index']}]"
            text = console.harmless(entry["message"])
            console.results.print(f"{entry['ts']} {entry['level']:<7}{item} {entry['code']}: {text}")


@app.command()
def artifacts(job_id: JobId, out: Out = None, json: Json = False) -> None:
    """List a job's images with links that work for a while; --out saves them, checked by sha256."""
    with server() as client:
        if out:
            saved = images.save_all(client, job_id, out)
            if json:
                console.as_json([image.as_dict() for image in saved])
            else:
                images.show(saved)
            return
        found = client.artifacts(job_id)
    if json:
        console.as_json({"items": found})
        return
    rows: list[list[object]] = [
        [a["item_index"], a["seed"], f"{a['width']}x{a['height']}", a["size_bytes"], a["sha256"], a["url"]]
        for a in found
    ]
    console.table(["ITEM", "SEED", "SIZE", "BYTES", "SHA256", "URL"], rows)


def _finish(client: Client, job: dict[str, Any], out: Path | None, *, json: bool) -> None:
    """Follow to the end, save what there is, and leave with 1 unless the job succeeded."""
    ended = follow(client, job, json_lines=json)
    saved = images.save_all(client, str(job["id"]), out) if out else []
    if json:
        console.as_json_line({"event": "job", **ended, "saved": [image.as_dict() for image in saved]})
    else:
        images.show(saved)
        if not saved:
            _describe(ended)
    if ended["status"] != JobState.SUCCEEDED:
        raise typer.Exit(JOB_FAILED)


def _describe(job: dict[str, Any]) -> None:
    error = job.get("error") or {}
    params = job.get("params") or {}
    console.facts(
        [
            ("id", job["id"]),
            ("status", job["status"]),
            ("progress", f"{job['progress']:.0%} ({job['completed']}/{job['count']} images)"),
            ("model", job["model_id"]),
            ("prompt", params.get("prompt")),
            ("created", job["created_at"]),
            ("started", job["started_at"]),
            ("finished", job["finished_at"]),
            ("attempt", job["attempt"]),
            ("queue position", job["queue_position"]),
            ("labels", " ".join(f"{k}={v}" for k, v in (job.get("labels") or {}).items())),
            ("error", f"{error['code']}: {error['message']}" if error else None),
            ("warnings", "; ".join(_warning(w) for w in job.get("warnings") or [])),
        ]
    )


def _warning(warning: Any) -> str:
    return str(warning.get("message", warning)) if isinstance(warning, dict) else str(warning)


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that the command line named; the server fills in the others."""
    return {name: value for name, value in fields.items() if value is not None}


def _labels(given: list[str]) -> dict[str, str]:
    made = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            stop(f"--label {text}: must be KEY=VALUE", WRONG_USAGE)
        made[key] = value
    return made
