"""What a bug report needs to say about the machine and the checkout; no name, no path, no address."""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "tokenizers", "numpy", "pandas",
            "scikit-learn", "papermill", "dvc")  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "sve")
FILES = ("params.yaml", "dvc.lock", "study/dvc.lock", "requirements.lock", "data.dvc")


def describe(root: Path = Path()) -> dict[str, str]:
    """Names and values, in the order in which they are to be read."""
    import torch

    from prefcore.lab.devices import memory_here
    from prefcore.lab.export import commit

    found = {"commit": commit(), "python": platform.python_version()}
    found |= {"system": f"{platform.system()} {platform.release()}"} | processor()
    found["memory"] = f"{memory / 2**30:.0f} GiB" if (memory := memory_here()) else "unknown"
    found["threads of torch"] = str(torch.get_num_threads())
    found["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    found["mps"] = "yes" if torch.backends.mps.is_available() else "no"
    found |= {name: version(name) for name in PACKAGES}
    return found | {f"sha256 of {name}": digest(root / name) for name in FILES}


def processor() -> dict[str, str]:
    """Model, usable cores and the flags that decide which products are fast, as far as the system tells."""
    path, cores = Path("/proc/cpuinfo"), os.cpu_count()
    known = path.read_text() if path.exists() else ""
    fields = dict(line.split(":", 1) for line in known.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {"processor": fields.get("model name", platform.machine()), "cores": f"{usable} of {cores}",
            "flags": " ".join(flag for flag in FLAGS if flag in flags) or "unknown"}  # fmt: skip


def version(package: str) -> str:
    """The installed version, or that there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def digest(path: Path) -> str:
    """The first half of a file's sha256, or that there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32] if path.exists() else "no such file"
