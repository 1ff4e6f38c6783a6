"""A whole Kubernetes of one node in a machine of its own, with services, DNS, and GPUs that are not there."""

import os
import shutil
from pathlib import Path

from tests.cluster import archive, commands, images, parts
from tests.cluster.control_plane import prepare, wait_until_ready
from tests.cluster.kubectl import Kubectl, Object, condition, eventually
from tests.cluster.machine import Machine
from tests.cluster.process import Process

PAUSE = "localhost/pause:1"
GPU = "nvidia.com/gpu"
_START_SECONDS = 60.0
_NODE_PROCESSES = (
    *("kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy", "coredns", "gpu-plugin"),
)


class Cluster:
    """``processes`` are by the names of their programs; each may be stopped, killed, frozen and started again."""

    def __init__(self, folder: Path, *, gpus: int = 1) -> None:
        self.machine = Machine(folder)
        self.folder = self.machine.folder
        self.kubeconfig = self.folder / "kubeconfig"
        self.broken_gpus = self.folder / "broken-gpus"
        """Names of GPUs (``gpu0``; ``*`` is all) that the device plugin reports as unhealthy."""
        self.gpus = gpus
        self.kubectl = Kubectl(self.kubeconfig)
        self.processes: dict[str, Process] = self._processes() if self.machine.running else {}

    @property
    def running(self) -> bool:
        return self.machine.running and os.access(self.kubeconfig, os.R_OK)

    def up(self, *, owned: bool) -> None:
        """Start everything and return when pods with a GPU can run; an ``owned`` cluster ends with its caller."""
        try:
            self.machine.start(owned=owned)
            prepare(self.folder, self.at, self.kubeconfig)
            self.processes = self._processes()
            for name in ("etcd", "kube-apiserver", "containerd"):
                self.processes[name].start()
            self.wait_until_ready()
            self._import_pause()
            for name in _NODE_PROCESSES:
                self.processes[name].start()
            self.kubectl.within("kube-system").apply(*_dns(self.machine.address))
            eventually("node with GPUs", self._node_is_ready, timeout=_START_SECONDS)
        except BaseException:
            self.keep_logs()
            self.machine.stop()
            raise

    def wait_until_ready(self) -> None:
        """Until the API server is, after a test has stopped it and started it again."""
        wait_until_ready(self.at, self.folder, self.processes["kube-apiserver"])

    def down(self) -> None:
        self.machine.stop()

    def load(self, image: str, name: str) -> None:
        """Give an image of buildah's store to the node under a name, unless it has that very one."""
        given = self.folder / "images" / name.replace("/", "_")
        identity = images.identity(image)
        if given.exists() and given.read_text() == identity:
            return
        images.hand_over(image, name, self.take)
        given.parent.mkdir(exist_ok=True)
        given.write_text(identity)

    def take(self, packed: Path) -> None:
        """An image archive, into the node's store."""
        self.machine.run(parts.program("ctr"), "--namespace", "k8s.io", "images", "import", packed)

    def allocatable_gpus(self) -> int:
        return allocatable_gpus(self.kubectl)

    def keep_logs(self) -> None:
        """Beside the folder, which is about to go."""
        kept = self.folder.with_name(f"{self.folder.name}-logs")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.folder / "logs", kept)

    @property
    def host_address(self) -> str:
        """Of the machine that tests run on, as pods reach it."""
        return self.machine.host_address

    @property
    def at(self) -> commands.Addresses:
        """Fixed ports: the machine has its own."""
        return commands.Addresses(self.machine.address, 6443, 2379, 2380)

    def _processes(self) -> dict[str, Process]:
        address = self.machine.address
        lines: dict[str, commands.Command] = {
            "etcd": commands.etcd(self.folder, self.at),
            "kube-apiserver": commands.api_server(self.folder, self.at),
            "kube-controller-manager": commands.controller_manager(self.folder, self.kubeconfig),
            "kube-scheduler": commands.scheduler(self.kubeconfig),
            "containerd": commands.containerd(),
            "kubelet": commands.kubelet(self.kubeconfig, address, self.machine.cgroup),
            "kube-proxy": commands.kube_proxy(self.kubeconfig, address),
            "coredns": commands.coredns(),
            "gpu-plugin": commands.gpu_plugin(self.gpus, self.broken_gpus),
        }
        environment = {"KUBECONFIG": str(self.kubeconfig), "PYTHONPATH": str(parts.ROOT)}
        return {name: self.machine.process(name, line, **environment) for name, line in lines.items()}

    def _import_pause(self) -> None:
        """The image that holds every pod's namespaces; containerd may still be starting."""
        rootfs, packed = self.folder / "pause", self.folder / "pause.tar"
        rootfs.mkdir()
        shutil.copy2(parts.program("pause"), rootfs / "pause")
        archive.pack(rootfs, PAUSE, packed, "/pause")
        eventually("containerd", self._containerd_answers, timeout=_START_SECONDS)
        self.take(packed)

    def _containerd_answers(self) -> bool:
        try:
            self.machine.run(parts.program("ctr"), "version")
        except RuntimeError:
            return False
        return True

    def _node_is_ready(self) -> bool:
        ready = condition(self.kubectl.get("node", commands.NODE), "Ready")
        return ready is not None and ready["status"] == "True" and self.allocatable_gpus() == self.gpus


def allocatable_gpus(kubectl: Kubectl) -> int:
    """Of all nodes."""
    return sum(int(node["status"]["allocatable"].get(GPU, 0)) for node in kubectl.list("nodes"))


def _dns(address: str) -> tuple[Object, Object]:
    """CoreDNS is a process and no pod, so its service has its endpoint by hand."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns"},
        "spec": {"clusterIP": commands.DNS, "ports": ports},
    }
    endpoints: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-1",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }
    return service, endpoints
