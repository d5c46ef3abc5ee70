"""The process of one remote game: `python -m reverie.evaluation.game_process CONNECTION LIFELINE`, see `evaluation.remote`.

Both arguments are file descriptors. When the lifeline is cut, because whoever started this process is gone, it ends at once
with everything that it started.
"""

import os
import signal
import sys
import threading


def main(connection: int, lifeline: int) -> None:
    """Serves the game until the other end closes the connection."""
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    from reverie.evaluation.game_server import serve  # takes seconds, in which the lifeline must hold already

    serve(connection)


def _die_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written: it returns when the other end is gone
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
