# SPDX-License-Identifier: Apache-2.0
"""What belongs to no object: versions, devices, plans, conversion."""
from __future__ import annotations

import os
from typing import List, Optional, Union

from . import native
from ._base import Progress, described, info, type_number, watcher
from ._header import DeviceInfo, MemoryPlan

Path = Union[str, bytes, "os.PathLike[str]"]


@described("wkv_version")
def version() -> str:
    return str(native.version())


@described("wkv_abi_version")
def abi_version() -> int:
    return int(native.abi_version())


@described("wkv_device_get_info")
def devices() -> List[DeviceInfo]:
    """Every device, the CPU first."""
    found = []
    for index in range(native.device_count()):
        raw = native.DeviceInfo()
        native.device_get_info(index, raw)
        found.append(info(raw, DeviceInfo))
    return found


def model_options(device: Optional[str] = "auto", threads: int = 0, weight_type: Optional[str] = None,
                  state_type: Optional[str] = None, memory_limit_bytes: int = 0, kernels: Optional[str] = None,
                  reproducible: bool = False, chunk_tokens: int = 0, parking_limit_bytes: int = 0) -> native.ModelOptions:
    """wkv_model_options; the defaults are the library's."""
    options = native.ModelOptions()
    options.set_device(device)
    options.set_kernels(kernels)
    options.threads = threads
    options.weight_type = type_number(weight_type)
    options.state_type = type_number(state_type)
    options.memory_limit_bytes = memory_limit_bytes
    options.is_reproducible = int(reproducible)
    options.chunk_tokens = chunk_tokens
    options.parking_limit_bytes = parking_limit_bytes
    return options


@described("wkv_model_plan_memory")
def plan_memory(path: Path, *, caches_count: int = 1, step_tokens: int = 0, step_logits: int = 0, step_sampled: int = 0,
                step_spares: int = 0, device: Optional[str] = "auto", threads: int = 0,
                weight_type: Optional[str] = None, state_type: Optional[str] = None, memory_limit_bytes: int = 0,
                kernels: Optional[str] = None, reproducible: bool = False, chunk_tokens: int = 0,
                parking_limit_bytes: int = 0) -> MemoryPlan:
    """The memory a model will need, before it is loaded."""
    options = model_options(device, threads, weight_type, state_type, memory_limit_bytes, kernels, reproducible,
                            chunk_tokens, parking_limit_bytes)
    plan = native.MemoryPlan()
    plan.caches_count = caches_count
    plan.step_tokens = step_tokens
    plan.step_logits = step_logits
    plan.step_sampled = step_sampled
    plan.step_spares = step_spares
    native.Model.plan_memory(path, options, plan)
    return info(plan, MemoryPlan)


@described("wkv_convert")
def convert(source: Path, target: Path, *, weight_type: Optional[str] = None, vocabulary: Optional[Path] = None,
            name: Optional[str] = None, progress: Optional[Progress] = None) -> None:
    """Rewrite a checkpoint as one GGUF file."""
    options = native.ConvertOptions()
    options.weight_type = type_number(weight_type)
    if vocabulary is not None:
        options.set_vocabulary_path(vocabulary)
    if name is not None:
        options.set_name(name)
    watching = watcher(progress)
    options.set_progress(watching)
    native.convert(source, target, options)
