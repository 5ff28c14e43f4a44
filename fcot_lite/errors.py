"""Every fault a user can meet, each with its exit code.

FcotError
├── RecipeError    2  the recipe or the command line
├── DataError      3  task files, problems, completions
├── ResourceError  4  memory, disk, device, a missing system library
└── EngineError    5  vLLM, training, a stage that died

The command line prints the message without a traceback and exits with the code. A message says what is
wrong, where (file and line, or dotted key) and what to do.
"""


class FcotError(Exception):
    exit_code = 1


class RecipeError(FcotError):
    exit_code = 2


class DataError(FcotError):
    exit_code = 3


class ResourceError(FcotError):
    exit_code = 4


class EngineError(FcotError):
    exit_code = 5


INTERRUPTED = 130  # the shell's code for a process that SIGINT ended
