"""Which machine this is: processor, what it can multiply, libraries, and settings of processes. No name, no path."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
PACKAGES = ("torch", "transformers", "trl", "peft")
SETTINGS = re.compile("THP_MEM_|MALLOC_|GLIBC_TUNABLES|LD_PRELOAD|KMP_|MKL_|ONEDNN_|DNNL_|TRANSFORMERS_SDPA")


def describe() -> dict:
    """What a run's speed depends on, as plain values."""
    said = _first_processor()
    present = said.get("flags", "").split()
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "processor": said.get("model name", platform.processor() or platform.machine()),
        "family": [int(said[name]) for name in ("cpu family", "model") if name in said],
        "cores": os.cpu_count(),
        "flags": {flag: flag in present for flag in FLAGS},
        "system": f"{platform.system()} {platform.machine()}",
        "huge_pages": re.findall(r"\[(\w+)\]", pages.read_text())[0] if pages.exists() else "",
        "settings": {key: Path(value).name for key, value in sorted(os.environ.items()) if SETTINGS.match(key)},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def has_bfloat16(machine: dict) -> bool:
    """Whether the processor itself multiplies bfloat16; in emulation it would be many times slower."""
    return machine["flags"]["avx512_bf16"] or machine["flags"]["amx_bf16"]


def name(machine: dict) -> str:
    """One line that names the machine."""
    family = " (family {}, model {})".format(*machine["family"]) if machine["family"] else ""
    flags = ", ".join(f"{flag} {'yes' if there else 'no'}" for flag, there in machine["flags"].items())
    return f"{machine['processor']}{family}, {machine['cores']} cores, {flags}"


def _first_processor() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    block = info.read_text().split("\n\n")[0] if info.exists() else ""
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
