"""A child that can't outlive its parent. Also vLLM's plugin, so that the engine's own processes hang on it too.

vLLM 0.32 leaves `VLLM::EngineCore` alive, holding its memory, when the process that started it is killed
(vllm issues #19849, #34643): its plugins are loaded in EngineCore and in every worker, so each can ask the kernel to
be killed with its parent.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIFELINE = "FCOT_LIFELINE"  # set for a run's stages only: other users of vLLM in this environment are left alone


def follow_parent() -> None:
    """Asks the kernel to kill this process when its parent ends. Does nothing outside a run's stages."""
    if LIFELINE not in os.environ:
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended between the two calls
        os._exit(1)
