"""What things are called on a cluster: API group, labels, annotations, field managers, derived object names.

Labels and annotations named here are ours to set on objects we make (``RenderJob`` by the API, child Jobs and
pods by the operator). They are never read from a ``RenderJob`` that a person or a GitOps tool owns.
"""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid5

GROUP: Final = "dreamforge.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "RenderJob"
LIST_KIND: Final = "RenderJobList"
PLURAL: Final = "renderjobs"
SINGULAR: Final = "renderjob"
SHORT_NAME: Final = "rj"
CATEGORY: Final = "dreamforge"
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

#: The longest ``metadata.name`` of a RenderJob: leaves room for uid, index and pod suffix in 63 characters.
MAX_NAME: Final = 50

# Labels of child Jobs and pods, and of what the API makes.
LABEL_JOB_ID: Final = f"{GROUP}/job-id"
LABEL_STEP: Final = f"{GROUP}/step"
LABEL_RENDERJOB: Final = f"{GROUP}/renderjob"
LABEL_RENDERJOB_UID: Final = f"{GROUP}/renderjob-uid"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
COMPONENT_RUNNER: Final = "runner"

# Annotations.
#: The render spec of inline input, on the pod; a downward-API file makes it readable to the runner.
ANNOTATION_RENDER_SPEC: Final = f"{GROUP}/render-spec"
#: SHA-256 of the render spec an API-made RenderJob stands for: the same job submitted twice is told from another.
ANNOTATION_SPEC_HASH: Final = f"{GROUP}/spec-sha256"
ANNOTATION_CORRELATION_ID: Final = f"{GROUP}/correlation-id"

# Values of ``spec.managedBy``.
MANAGED_BY_OPERATOR: Final = f"{GROUP}/operator"
MANAGED_BY_MULTIKUEUE: Final = "kueue.x-k8s.io/multikueue"

# Field managers and values of LABEL_MANAGED_BY.
OPERATOR_MANAGER: Final = "dreamforge-operator"
API_MANAGER: Final = "dreamforge-api"
CLI_MANAGER: Final = "dreamforge-cli"

DEFAULT_GPU_RESOURCE: Final = "nvidia.com/gpu"
#: The key of the render spec in a Secret that ``spec.inputSecretRef`` names.
INPUT_KEY: Final = "render-spec.json"

# Other people's names that we meet.
KUEUE_QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY_LABEL: Final = "kueue.x-k8s.io/priority-class"
KUEUE_JOB_UID_LABEL: Final = "kueue.x-k8s.io/job-uid"
FLUX_NAME_LABEL: Final = "kustomize.toolkit.fluxcd.io/name"
ARGO_TRACKING_ANNOTATION: Final = "argocd.argoproj.io/tracking-id"


def resource_name(job_id: UUID) -> str:
    """The name of the RenderJob, and of its Secret, that the API makes for a job."""
    return f"rj-{job_id}"


def child_name(name: str, uid: str) -> str:
    """The one name a RenderJob's child Job may have: another RenderJob of the same name gets another child."""
    return f"{name}-{uid.partition('-')[0]}"


_JOB_IDS = UUID("5a8c2f5e-4d1b-5c0e-9a51-0d6c3a6f9b10")


def job_id_of(uid: str, created_at: datetime) -> UUID:
    """The id of a job whose RenderJob names none: a UUIDv7 of the object's creation, the same each time.

    Jobs are listed by id, newest first, so the time comes first; the rest is taken from the object's uid.
    """
    milliseconds = int(created_at.astimezone(UTC).timestamp() * 1000)
    drawn = uuid5(_JOB_IDS, uid).int
    version, variant = 0x7 << 76, 0b10 << 62
    return UUID(int=milliseconds << 80 | version | (drawn >> 64 & 0xFFF) << 64 | variant | drawn & (1 << 62) - 1)
