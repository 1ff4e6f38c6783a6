"""A device plugin as the kubelet knows it: it offers GPUs that are not there and hands them out by CDI name alone.

So a pod gets its device only when the whole way works: kubelet, container runtime with CDI on, spec in its folder.
"""

import os
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from tests.cluster.gpu import cdi
from tests.cluster.gpu.messages import MESSAGES, PACKAGE

_POLL_SECONDS = 0.2


def say(*words: object) -> None:
    print("gpu-plugin:", *words, flush=True)


class GpuPlugin:
    """Serves until ``stopped`` is set, and registers again whenever the kubelet's socket is a new one."""

    def __init__(self, count: int, cdi_folder: Path, plugins: Path, unhealthy: Path) -> None:
        self.stopped = threading.Event()
        self._devices = [f"gpu{index}" for index in range(count)]
        self._unhealthy = unhealthy
        self._spec = cdi_folder / "nvidia.com-gpu.json"
        self._kubelet = plugins / "kubelet.sock"
        self._socket = plugins / "dreamforge-gpu.sock"

    def run(self) -> None:
        cdi.write(self._spec, self._devices)
        server: grpc.Server | None = None
        registered: object = None
        while not self.stopped.wait(_POLL_SECONDS):
            kubelet = _identity(self._kubelet)
            if kubelet is None or kubelet == registered:
                continue
            if server:
                server.stop(None)
            server = self._serve()
            try:
                self._register()
                registered = kubelet
            except grpc.RpcError as refused:
                say("not registered, trying again:", refused)
        if server:
            server.stop(None)
        for path in (self._spec, self._socket):
            path.unlink(missing_ok=True)

    def options(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return MESSAGES["DevicePluginOptions"]()

    def list_and_watch(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """The devices and their health, again at every change."""
        told: dict[str, str] | None = None
        while context.is_active() and not self.stopped.is_set():
            health = self._health()
            if health != told:
                say("health", health)
                devices = [{"ID": device, "health": state} for device, state in health.items()]
                yield MESSAGES["ListAndWatchResponse"](devices=devices)
                told = health
            self.stopped.wait(_POLL_SECONDS)

    def allocate(self, request: Any, _context: grpc.ServicerContext) -> Any:
        response = MESSAGES["AllocateResponse"]()
        for container in request.container_requests:
            names = [f"{cdi.KIND}={device}" for device in container.devices_ids]
            say("allocate", names)
            response.container_responses.add(cdi_devices=[{"name": name} for name in names])
        return response

    def _health(self) -> dict[str, str]:
        broken = set(self._unhealthy.read_text().split()) if self._unhealthy.exists() else set()
        return {device: "Unhealthy" if broken & {device, "*"} else "Healthy" for device in self._devices}

    def _serve(self) -> grpc.Server:
        """On a fresh socket: the kubelet empties its folder when it starts."""

        def unary(handler: Any, request: str, response: str) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                handler, MESSAGES[request].FromString, MESSAGES[response].SerializeToString
            )

        handlers = {
            "GetDevicePluginOptions": unary(self.options, "Empty", "DevicePluginOptions"),
            "Allocate": unary(self.allocate, "AllocateRequest", "AllocateResponse"),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                self.list_and_watch, MESSAGES["Empty"].FromString, MESSAGES["ListAndWatchResponse"].SerializeToString
            ),
        }
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(f"{PACKAGE}.DevicePlugin", handlers)])
        self._socket.unlink(missing_ok=True)
        server.add_insecure_port(f"unix://{self._socket}")
        server.start()
        return server

    def _register(self) -> None:
        request = MESSAGES["RegisterRequest"](version=PACKAGE, endpoint=self._socket.name, resource_name=cdi.KIND)
        with grpc.insecure_channel(f"unix://{self._kubelet}") as channel:
            call = channel.unary_unary(
                f"/{PACKAGE}.Registration/Register",
                MESSAGES["RegisterRequest"].SerializeToString,
                MESSAGES["Empty"].FromString,
            )
            call(request, timeout=5, wait_for_ready=True)
        say("registered", cdi.KIND, len(self._devices))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_ctime_ns
