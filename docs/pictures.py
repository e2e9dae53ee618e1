"""Make the README's picture: `python docs/pictures.py` fits on forty synthetic boards and draws one damaged one."""

from pathlib import Path

import numpy as np

from totalrecall import PatchCore
from totalrecall.overlay import save_overlay
from totalrecall.synthetic import defective, good

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write docs/heatmap.png."""
    boards = [good("board", np.random.default_rng([1, i])) for i in range(40)]
    picture, _ = defective("board", "scratch", np.random.default_rng([2, 3]))
    detector = PatchCore(false_alarm_rate=0.12).fit(boards)
    result = detector.predict(picture)
    save_overlay(HERE / "heatmap.png", result.overlay(picture, title="synthetic board, scratched"))


if __name__ == "__main__":
    main()
