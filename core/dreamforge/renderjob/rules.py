"""The rules in CEL that an API server keeps about a RenderJob, beyond types and bounds.

Those that look at several fields stand on the spec, since an object with a default of ``{}`` may have no rule of its
own. Messages say what to do. A rule with ``oldSelf`` is looked at on updates only.
"""

from typing import Final, NamedTuple

from dreamforge.renderjob.names import MAX_NAME


class Rule(NamedTuple):
    """One rule; ``field`` is the path that a refusal names, from where the rule stands."""

    rule: str
    message: str
    field: str | None = None


def _fixed(field: str, *, required: bool = False) -> Rule:
    """A field that keeps the value, or the absence, it was created with."""
    same = f"self.{field} == oldSelf.{field}"
    if not required:
        same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {same})"
    message = f"{field} can't be changed once the RenderJob exists; delete it and make a new one"
    return Rule(same, message, f".{field}")


def _same_queue() -> Rule:
    return Rule(
        "has(self.queue) == has(oldSelf.queue) && (!has(self.queue) || self.queue.name == oldSelf.queue.name)",
        "the queue can't be changed once the RenderJob exists (its priorityClassName can); "
        "delete it and make a new one",
        ".queue",
    )


# CEL sees no more of metadata than its names, and a rule's field path may not lead there.
_OBJECT = (
    Rule(
        f"size(self.metadata.name) <= {MAX_NAME} && !self.metadata.name.contains('.')",
        f"metadata.name may have at most {MAX_NAME} characters and no dots, since pods are named after it",
    ),
)

#: On ``spec``.
_SPEC = (
    Rule(
        "has(self.input) != has(self.inputSecretRef)",
        "set exactly one of input (what to render, here) and inputSecretRef (the Secret that holds it)",
        ".input",
    ),
    Rule(
        "self.batch.shards <= self.batch.count",
        "there can't be more shards than images: lower batch.shards or raise batch.count",
        ".batch.shards",
    ),
    Rule(
        "self.limits.itemTimeoutSeconds <= self.limits.activeDeadlineSeconds",
        "one image can't be given more time than the whole job: lower limits.itemTimeoutSeconds or raise "
        "limits.activeDeadlineSeconds",
        ".limits.itemTimeoutSeconds",
    ),
    Rule(
        "!has(self.gpu.resourceClaimTemplateName) || self.gpu.count > 0",
        "a job without a GPU claims none: leave resourceClaimTemplateName out or set gpu.count to 1 or more",
        ".gpu.resourceClaimTemplateName",
    ),
    _fixed("jobId"),
    _fixed("provider", required=True),
    _fixed("modelRef"),
    _fixed("runtimeRef"),
    _fixed("input"),
    _fixed("inputSecretRef"),
    _fixed("batch", required=True),
    _same_queue(),
    Rule(
        "!has(self.queue) || !has(oldSelf.queue) || !has(oldSelf.queue.priorityClassName) "
        "|| has(self.queue.priorityClassName)",
        "priorityClassName can be changed but not removed: Kueue refuses that",
        ".queue.priorityClassName",
    ),
    _fixed("gpu", required=True),
    _fixed("limits", required=True),
    _fixed("retry", required=True),
    _fixed("managedBy", required=True),
)

_CLEAN_TEXT = Rule(
    r"!self.matches(r'[\x00-\x08\x0b\x0c\x0e-\x1f]')",
    "text may not hold control characters other than tab, line feed and carriage return",
)
_NOT_BLANK = Rule("self.trim() != ''", "text may not be blank")

_TIME = Rule(
    r"self.matches(r'^[1-9][0-9]{3}-[0-9-]{5}T[0-9:]{8}(\.[0-9]{1,9})?Z$') && timestamp(self) > timestamp(0)",
    "times are in UTC and look like 2026-01-31T12:00:00Z",
)

#: Every rule, by the path of the field it stands on (``*``: any entry of a list). Those on text say what
#: ``dreamforge.spec`` says of it.
RULES: Final[dict[tuple[str, ...], tuple[Rule, ...]]] = {
    (): _OBJECT,
    ("spec",): _SPEC,
    ("spec", "input", "prompt"): (_CLEAN_TEXT, _NOT_BLANK),
    ("spec", "input", "negativePrompt"): (_CLEAN_TEXT,),
    ("status", "startTime"): (_TIME,),
    ("status", "completionTime"): (_TIME,),
    ("status", "cancelRequestTime"): (_TIME,),
    ("status", "conditions", "*", "lastTransitionTime"): (_TIME,),
}
