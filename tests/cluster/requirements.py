"""What a machine needs for a whole cluster, and getting the Debian packages it lacks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster import control_plane, parts

# What is missing without the package -> the package (Debian and Ubuntu).
_PACKAGES = {
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "gcc": "gcc",
    "pkg-config": "pkg-config",
}
_CNI = ("/usr/lib/cni", "/opt/cni/bin")
_SECCOMP_HEADER = Path("/usr/include/seccomp.h")
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def missing() -> str | None:
    """Why no cluster can be started here, or ``None``."""
    if not sys.platform.startswith("linux"):
        return "a cluster runs on Linux only"
    if os.geteuid() != 0:
        return "a cluster needs root (namespaces, mounts, containers)"
    if packages := missing_packages():
        return f"packages are missing: {' '.join(packages)} (`make cluster-up` installs them on Debian)"
    if reason := parts.not_built(parts.NODE):
        return reason
    return control_plane.available(controllers=True) or no_namespaces()


def missing_packages() -> list[str]:
    """By their Debian names."""
    packages = {package for program, package in _PACKAGES.items() if not shutil.which(program, path=_PATH)}
    if not any((Path(folder) / "ptp").exists() for folder in _CNI):
        packages.add("containernetworking-plugins")
    if not _SECCOMP_HEADER.exists() and not parts.program("runc").exists():
        packages.add("libseccomp-dev")
    return sorted(packages)


def install_packages() -> str | None:
    """Install what is missing, where that can be done; else why it could not."""
    packages = missing_packages()
    if not packages:
        return None
    command = f"apt-get install --yes --no-install-recommends {' '.join(packages)}"
    if not shutil.which("apt-get"):
        return f"packages are missing, and this is not Debian; by their Debian names: {' '.join(packages)}"
    if os.geteuid() != 0:
        return f"packages are missing; as root: {command}"
    print(f"cluster: installing packages: {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["apt-get", "update", "--quiet=2"], [*command.split(), "--quiet=2"]):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(words)}: {done.stderr.strip()[-1000:]}"
    return None


def no_namespaces() -> str | None:
    """Containers often have a root that may not do this."""
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"this root may not make namespaces: {done.stderr.strip()}" if done.returncode else None
