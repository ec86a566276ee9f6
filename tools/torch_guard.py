"""Stop before pip fetches gigabytes of CUDA packages for a machine that has no GPU.

Run by the Makefile as `python tools/torch_guard.py REQUIREMENT [INDEX]`. It asks pip what it would install, without
installing it. An index named by the user is taken as the user's choice, and so is a machine with an NVIDIA device.
"""

import json
import subprocess
import sys
from pathlib import Path

REMEDY = """\
No GPU was found here, and pip would fetch {count} CUDA packages with {requirement}.
Take the CPU build:   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
"""


def has_gpu(device: Path = Path("/dev/nvidiactl")) -> bool:
    """Whether an NVIDIA driver is loaded (its control device exists)."""
    return device.exists()


def planned_packages(requirement: str) -> list[str]:
    """Names of what `pip install requirement` would install now."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    answer = subprocess.run([*command, "--only-binary=:all:", "--report=-", requirement], stdout=subprocess.PIPE)
    if answer.returncode:
        sys.exit(answer.returncode)  # pip has said why
    return [item["metadata"]["name"] for item in json.loads(answer.stdout)["install"]]


def refusal(names: list[str], requirement: str) -> str | None:
    """The sentence that stops the installation, or None if nothing of CUDA is in `names`."""
    cuda = [name for name in names if name.lower().startswith(("nvidia-", "cuda-"))]
    return REMEDY.format(count=len(cuda), requirement=requirement) if cuda else None


def main(requirement: str, index: str | None = None) -> int:
    """Exit status for the Makefile: 0 to go on, 1 after printing the remedy."""
    if index or has_gpu():
        return 0
    message = refusal(planned_packages(requirement), requirement)
    if message:
        print(message, file=sys.stderr, end="")
    return 1 if message else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
