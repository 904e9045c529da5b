"""Whether a device computes in bfloat16, or only imitates it."""

from __future__ import annotations

from pathlib import Path

import torch

CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls it on x86 and on ARM."""
AMPERE = (8, 0)
"""The first compute capability of NVIDIA's that has it."""


def has_bfloat16(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """False for a GPU or CPU that would take longer than in float32; also for a CPU that does not tell (it does on Linux)."""
    if device.type != "cpu":
        return torch.cuda.get_device_capability(device) >= AMPERE
    return cpuinfo.is_file() and not CPU_FLAGS.isdisjoint(cpuinfo.read_text().split())
