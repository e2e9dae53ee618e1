"""The process's OpenVINO: imported without its telemetry, opened once, and what the processor can.

Backbones are run by it, exported graphs too, and the lower bounds of the search. A forked child opens its own.
"""

import functools
import sys
from pathlib import Path
from typing import Any

from totalrecall.system.threads import abandon, in_child, wait_before_fork

__all__ = ["capabilities", "core", "machine", "matrix_units", "openvino_package"]


@functools.cache
def openvino_package() -> Any:
    """Return the module openvino, imported without its telemetry."""
    # subtle: `import openvino` reports itself to a server abroad unless the user opted out. A line PC must not phone
    # home, so while it is imported its telemetry counts as not installed, a case that openvino provides for.
    name = "openvino_telemetry"
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hidden:
            del sys.modules[name]
    return openvino


@functools.cache
def core() -> Any:
    """Return the core, which compiles graphs; a forked child has its own."""
    own = openvino_package().Core()
    # On Linux OpenVINO binds a graph's first thread to the first processor, and with one thread that is the caller's.
    # So two processes, or two graphs of one, would wait for the same processor while another has nothing to do.
    # Measured on two: two workers of `predict --ray local` had 0.7 of a processor each.
    own.set_property("CPU", {"ENABLE_CPU_PINNING": False})
    return own


@functools.cache
def capabilities() -> tuple[str, ...]:
    """Return what the processor computes in natively, by OpenVINO's names, such as "BF16"."""
    return tuple(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@functools.cache
def matrix_units() -> bool:
    """Tell whether bfloat16 runs in matrix units (AMX), many times as fast as float32. Only Linux says so; else no."""
    try:
        return "BF16" in capabilities() and "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii")
    except (OSError, ValueError):
        return False


@functools.cache
def machine() -> tuple[str, ...]:
    """Return what makes a compiled graph of another machine or version unfit for this one."""
    return (openvino_package().__version__, str(core().get_property("CPU", "FULL_DEVICE_NAME")), *capabilities())


def _end_idle_threads() -> None:
    """End the threads that OpenVINO keeps of graphs that are gone, before a fork."""
    # subtle: it gives them to the next graph that is compiled. In a child they are gone, and the graph would wait for
    # them for ever. A plugin that is taken down lets go of the threads of all cores that have nothing to do.
    if core.cache_info().currsize:
        openvino_package().Core().get_property("CPU", "FULL_DEVICE_NAME")


def _renew() -> None:
    """Let a forked child open OpenVINO anew: the threads of the core are gone."""
    if core.cache_info().currsize:
        abandon(core())
        core.cache_clear()


wait_before_fork(_end_idle_threads)
in_child(_renew)
