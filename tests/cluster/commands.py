"""Command lines of a cluster's programs, as functions of addresses and folders."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import parts

NODE = "node1"
PODS = "10.244.0.0/24"
SERVICES = "10.96.0.0/16"
DNS = "10.96.0.10"
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


def scheduler(kubeconfig: Path) -> Command:
    return [
        parts.program("kube-scheduler"),
        *(f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--profiling=false"),
    ]


def containerd() -> Command:
    return [parts.program("containerd"), "--config", parts.MACHINE / "containerd.toml"]


def kubelet(kubeconfig: Path, address: str, cgroup: str) -> Command:
    return [
        parts.program("kubelet"),
        *(f"--config={parts.MACHINE / 'kubelet.yaml'}", f"--kubeconfig={kubeconfig}"),
        *(f"--hostname-override={NODE}", f"--node-ip={address}", f"--cgroup-root={cgroup}"),
    ]


def kube_proxy(kubeconfig: Path, address: str) -> Command:
    """Without limits of its own on connections, which are the host's."""
    return [
        parts.program("kube-proxy"),
        *(f"--kubeconfig={kubeconfig}", f"--hostname-override={NODE}", f"--bind-address={address}"),
        *("--proxy-mode=iptables", f"--cluster-cidr={PODS}"),
        *(
            f"--conntrack-{limit}=0"
            for limit in ("max-per-core", "tcp-timeout-established", "tcp-timeout-close-wait")
        ),
    ]


def coredns() -> Command:
    """Its file reads KUBECONFIG."""
    return [parts.program("coredns"), "-conf", parts.MACHINE / "Corefile"]


def gpu_plugin(count: int, unhealthy: Path) -> Command:
    return [
        *(sys.executable, "-m", "tests.cluster.gpu"),
        *("--cdi-dir", "/run/cdi", "--count", str(count), "--unhealthy-file", unhealthy),
    ]
