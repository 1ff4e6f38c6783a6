"""Manifests as people write them: good ones, and bad ones with what an API server must say of each."""

from typing import Any, NamedTuple

Spec = dict[str, Any]
PROMPT: Spec = {"prompt": "a red fox"}
BASE: Spec = {"input": PROMPT}
JOB_ID = "0190d6f2-7b1c-7000-8000-0123456789ab"


class Bad(NamedTuple):
    """A spec, change or status that is refused; the answer must hold every one of ``says``."""

    name: str
    spec: Spec
    says: tuple[str, ...]
    metadata: Spec


class Good(NamedTuple):
    """A spec that is taken."""

    name: str
    spec: Spec


def _input(**fields: Any) -> Spec:
    return {"input": {**PROMPT, **fields}}


def _with(**fields: Any) -> Spec:
    return {**BASE, **fields}


def bad(case: str, spec: Spec, *says: str, **metadata: Any) -> Bad:
    return Bad(case, spec, says, metadata)


ONE_INPUT = "set exactly one of input (what to render, here) and inputSecretRef (the Secret that holds it)"

BAD = (
    # What to render.
    bad("no input at all", {}, "spec.input: Invalid value", ONE_INPUT),
    bad("input and Secret", _with(inputSecretRef={"name": "s"}), "spec.input: Invalid value", ONE_INPUT),
    bad("no prompt", {"input": {"steps": 3}}, "spec.input.prompt: Required value"),
    bad("empty prompt", _input(prompt=""), "spec.input.prompt", "should be at least 1 chars long"),
    bad("blank prompt", _input(prompt=" \t\n\u00a0"), "spec.input.prompt", "text may not be blank"),
    bad("prompt too long", _input(prompt="x" * 4001), "spec.input.prompt: Too long: may not be more than 4000"),
    bad(
        "control character", _input(prompt="a\u0007fox"), "spec.input.prompt", "text may not hold control characters"
    ),
    bad(
        "control character in negative prompt",
        _input(negativePrompt="\u001b[31m"),
        "spec.input.negativePrompt",
        "text may not hold control characters",
    ),
    bad("negative prompt too long", _input(negativePrompt="x" * 4001), "spec.input.negativePrompt: Too long"),
    bad("prompt is a number", _input(prompt=5), "spec.input.prompt", "must be of type string"),
    bad("width too small", _input(width=128), "spec.input.width", "should be greater than or equal to 256"),
    bad("width too big", _input(width=4096), "spec.input.width", "should be less than or equal to 2048"),
    bad("height not a multiple of 8", _input(height=1020), "spec.input.height", "should be a multiple of 8"),
    bad("width is text", _input(width="1024"), "spec.input.width", "must be of type integer"),
    bad("no steps", _input(steps=0), "spec.input.steps", "should be greater than or equal to 1"),
    bad("too many steps", _input(steps=151), "spec.input.steps", "should be less than or equal to 150"),
    bad("half a step", _input(steps=1.5), "spec.input.steps", "must be of type integer"),
    bad("guidance negative", _input(guidance=-0.5), "spec.input.guidance", "should be greater than or equal to 0"),
    bad("guidance too high", _input(guidance=30.5), "spec.input.guidance", "should be less than or equal to 30"),
    bad("unknown scheduler", _input(scheduler="lms"), "spec.input.scheduler: Unsupported value", '"dpmpp_2m_karras"'),
    bad("unknown format", _input(format="gif"), "spec.input.format: Unsupported value", '"png", "jpg"'),
    bad("seed too big", _input(seed=2**32), "spec.input.seed", "should be less than or equal to 4294967295"),
    bad("unknown parameter", _input(cfg=7), 'unknown field "spec.input.cfg"'),
    bad("count in the input", _input(count=2), 'unknown field "spec.input.count"'),
    bad("Secret without a name", {"inputSecretRef": {"key": "k"}}, "spec.inputSecretRef.name: Required value"),
    bad("Secret by a path", {"inputSecretRef": {"name": "../etc"}}, "spec.inputSecretRef.name", "should match"),
    bad("key by a path", {"inputSecretRef": {"name": "s", "key": "a/b"}}, "spec.inputSecretRef.key", "should match"),
    # How, and by how many pods.
    bad("count 0", _with(batch={"count": 0}), "spec.batch.count", "should be greater than or equal to 1"),
    bad("count 101", _with(batch={"count": 101}), "spec.batch.count", "should be less than or equal to 100"),
    bad(
        "more shards than images",
        _with(batch={"count": 2, "shards": 3}),
        "spec.batch.shards: Invalid value",
        "there can't be more shards than images: lower batch.shards or raise batch.count",
    ),
    bad(
        "shards alone",
        _with(batch={"shards": 2}),
        "spec.batch.shards: Invalid value",
        "there can't be more shards than images",
    ),
    bad("GPUs negative", _with(gpu={"count": -1}), "spec.gpu.count", "should be greater than or equal to 0"),
    bad("a shelf of GPUs", _with(gpu={"count": 17}), "spec.gpu.count", "should be less than or equal to 16"),
    bad("cpu is no GPU", _with(gpu={"resourceName": "cpu"}), "spec.gpu.resourceName", "should match"),
    bad(
        "a claim for no GPU",
        _with(gpu={"count": 0, "resourceClaimTemplateName": "one"}),
        "spec.gpu.resourceClaimTemplateName: Invalid value",
        "a job without a GPU claims none: leave resourceClaimTemplateName out or set gpu.count to 1 or more",
    ),
    bad(
        "one image longer than the job",
        _with(limits={"itemTimeoutSeconds": 700, "activeDeadlineSeconds": 600}),
        "spec.limits.itemTimeoutSeconds: Invalid value",
        "one image can't be given more time than the whole job",
    ),
    bad("no grace", _with(limits={"graceSeconds": 0}), "spec.limits.graceSeconds", "greater than or equal to 1"),
    bad(
        "retries without end",
        _with(retry={"backoffLimit": 11}),
        "spec.retry.backoffLimit",
        "less than or equal to 10",
    ),
    bad("queue without a name", _with(queue={"priorityClassName": "p"}), "spec.queue.name: Required value"),
    bad(
        "TTL negative",
        _with(ttlSecondsAfterFinished=-1),
        "spec.ttlSecondsAfterFinished",
        "greater than or equal to 0",
    ),
    bad("deletion policy", _with(deletionPolicy="Delete"), "spec.deletionPolicy: Unsupported value", '"DeleteSelf"'),
    bad("managed by a stranger", _with(managedBy="example.com/x"), "spec.managedBy: Unsupported value"),
    bad("suspend is a word", _with(suspend="yes"), "spec.suspend", "must be of type boolean"),
    bad("job id is no UUID", _with(jobId="12345678"), "spec.jobId", "should be at least 36 chars long"),
    bad("job id in capitals", _with(jobId=JOB_ID.upper()), "spec.jobId", "should match"),
    bad("model without an id", _with(modelRef={}), "spec.modelRef.id: Required value"),
    bad("model by a path", _with(modelRef={"id": "../../model"}), "spec.modelRef.id", "should match"),
    bad("model without a slug", _with(modelRef={"id": "@1.0"}), "spec.modelRef.id", "should match"),
    bad("model of two versions", _with(modelRef={"id": "sdxl-x@1@2"}), "spec.modelRef.id", "should match"),
    # What belongs to the platform.
    bad("own image", _with(image="evil:1"), 'unknown field "spec.image"'),
    bad("own pod template", _with(template={"spec": {}}), 'unknown field "spec.template"'),
    # The object.
    bad("name too long", BASE, "metadata.name may have at most 50 characters and no dots", name="x" * 51),
    bad("name with dots", BASE, "metadata.name may have at most 50 characters and no dots", name="a.b"),
)

GOOD = (
    Good("a prompt and nothing else", BASE),
    Good(
        "every parameter",
        _input(
            negativePrompt="blurry",
            width=832,
            height=1216,
            steps=40,
            guidance=5.5,
            scheduler="unipc",
            seed=4294967295,
            format="jpg",
            embedMetadata=False,
        ),
    ),
    Good("the smallest picture", _input(width=256, height=256, steps=1, guidance=0, seed=0)),
    Good("the biggest picture", _input(width=2048, height=2048, steps=150, guidance=30)),
    Good("the longest prompt", _input(prompt="\U0001f98a" * 4000, negativePrompt="x" * 4000)),
    Good("lines, tabs, other scripts", _input(prompt="a fox,\n\tein Fuchs,\r\n\u72d0\u72f8", negativePrompt="")),
    Good("a Secret", {"inputSecretRef": {"name": "rj-1.input", "key": "render-spec.json"}, "jobId": JOB_ID}),
    Good("a Secret with the usual key", {"inputSecretRef": {"name": "rj-1"}}),
    Good("a hundred images by a hundred pods", _with(batch={"count": 100, "shards": 100})),
    Good("without a GPU", _with(provider="local-sketch", modelRef={"id": "sketch"}, gpu={"count": 0})),
    Good("an installed model", _with(modelRef={"id": "sdxl-x@1.0_b"})),
    Good("another vendor's GPU", _with(gpu={"resourceName": "amd.com/gpu", "count": 2})),
    Good("a resource claim", _with(gpu={"resourceClaimTemplateName": "one-gpu", "runtimeClassName": "nvidia"})),
    Good("a queue", _with(queue={"name": "gpu", "priorityClassName": "batch"}, suspend=True)),
    Good(
        "all clocks",
        _with(
            limits={
                "startDeadlineSeconds": 1,
                "activeDeadlineSeconds": 60,
                "itemTimeoutSeconds": 60,
                "graceSeconds": 600,
            },
            retry={"backoffLimit": 0},
            ttlSecondsAfterFinished=0,
            deletionPolicy="DeleteSelf",
        ),
    ),
    Good("born canceled", _with(cancel=True, managedBy="kueue.x-k8s.io/multikueue", runtimeRef={"name": "sdxl-l4"})),
    Good("nulls are absent", _input(negativePrompt=None, seed=None, width=None)),
)

#: A spec with every field set, to change each of them afterwards.
FULL: Spec = {
    "jobId": JOB_ID,
    "provider": "local-sketch",
    "modelRef": {"id": "sketch"},
    "runtimeRef": {"name": "sketch"},
    "input": {"prompt": "a red fox", "seed": 1},
    "batch": {"count": 4, "shards": 2},
    "queue": {"name": "gpu", "priorityClassName": "batch"},
    "gpu": {"count": 1},
    "limits": {"graceSeconds": 7},
    "retry": {"backoffLimit": 1},
}


def _fixed(case: str, field: str, value: Any, path: str | None = None) -> Bad:
    return bad(
        case,
        {field: value},
        f"spec.{path or field}: Invalid value",
        f"{field} can't be changed once the RenderJob exists; delete it and make a new one",
    )


#: Merge patches of ``FULL`` that are refused.
FIXED = (
    _fixed("job id", "jobId", JOB_ID[:-1] + "c"),
    _fixed("job id removed", "jobId", None),
    _fixed("provider", "provider", "local-sdxl-epicrealism"),
    _fixed("model", "modelRef", {"id": "other"}),
    _fixed("model removed", "modelRef", None),
    _fixed("runtime", "runtimeRef", {"name": "other"}),
    _fixed("prompt", "input", {"prompt": "a grey fox"}),
    _fixed("seed removed", "input", {"seed": None}),
    _fixed("count", "batch", {"count": 5}),
    _fixed("shards", "batch", {"shards": 1}),
    _fixed("GPU count", "gpu", {"count": 0}),
    _fixed("RuntimeClass added", "gpu", {"runtimeClassName": "nvidia"}),
    _fixed("grace", "limits", {"graceSeconds": 8}),
    _fixed("retries", "retry", {"backoffLimit": 9}),
    _fixed("manager", "managedBy", "kueue.x-k8s.io/multikueue"),
    bad("queue", {"queue": {"name": "other"}}, "spec.queue: Invalid value", "the queue can't be changed"),
    bad("queue removed", {"queue": None}, "spec.queue: Invalid value", "the queue can't be changed"),
    bad(
        "priority class removed",
        {"queue": {"priorityClassName": None}},
        "spec.queue.priorityClassName: Invalid value",
        "priorityClassName can be changed but not removed: Kueue refuses that",
    ),
    bad(
        "input moved to a Secret",
        {"input": None, "inputSecretRef": {"name": "s"}},
        "input can't be changed once",
        "inputSecretRef can't be changed once",
    ),
)
