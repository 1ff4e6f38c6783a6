"""Command lines of the control plane's programs, as functions of addresses and folders."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster import parts

SERVICES = "10.96.0.0/16"
ADMIN = "admin"

Command = list[str | Path]


@dataclass(frozen=True)
class Addresses:
    """Where a control plane listens; ``host`` is also what the API server's certificate is made out to."""

    host: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def api(self) -> str:
        return f"https://{self.host}:{self.api_port}"

    @property
    def etcd(self) -> str:
        return f"http://127.0.0.1:{self.etcd_port}"


def etcd(folder: Path, at: Addresses) -> Command:
    """Without fsync: nobody needs this data after a power cut."""
    return [
        parts.program("etcd"),
        *("--data-dir", folder / "etcd", "--unsafe-no-fsync", "--log-level", "warn"),
        *("--listen-client-urls", at.etcd, "--advertise-client-urls", at.etcd),
        *("--listen-peer-urls", f"http://127.0.0.1:{at.etcd_peer_port}"),
    ]


def api_server(folder: Path, at: Addresses, *flags: str) -> Command:
    """RBAC as in production; the one fixed account is in ``system:masters``."""
    return [
        parts.program("kube-apiserver"),
        f"--etcd-servers={at.etcd}",
        *(f"--bind-address={at.host}", f"--advertise-address={at.host}", f"--secure-port={at.api_port}"),
        *(f"--cert-dir={folder / 'certs'}", f"--token-auth-file={tokens(folder)}"),
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        *(f"--service-account-{use}-file={signing_key(folder)}" for use in ("key", "signing-key")),
        *("--authorization-mode=Node,RBAC", "--allow-privileged=true", "--profiling=false"),
        "--kubelet-preferred-address-types=InternalIP",
        *flags,
    ]


def controller_manager(folder: Path, kubeconfig: Path) -> Command:
    """No leader election: there is one."""
    return [
        parts.program("kube-controller-manager"),
        *(f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--use-service-account-credentials=true"),
        *(f"--service-account-private-key-file={signing_key(folder)}", f"--root-ca-file={certificate(folder)}"),
        *("--secure-port=0", "--profiling=false"),
    ]


def tokens(folder: Path) -> Path:
    """Fixed accounts: ``token,user,uid,"group"``."""
    return folder / "tokens.csv"


def signing_key(folder: Path) -> Path:
    """Signs the tokens of service accounts."""
    return folder / "service-account.key"


def certificate(folder: Path) -> Path:
    """The API server's own, with the authority that signed it; made by the API server when it first starts."""
    return folder / "certs" / "apiserver.crt"
