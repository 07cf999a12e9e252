"""Episodes of pushing an object to a target position: success and planning time of the planner with each backend.

Also a program of its own: ``python -m benchmarks.imagination.planner --backend learned --episodes 50``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from wm_bringup.planning.pushing import Episode
from wm_bringup.planning.pushing import run_episode as _run_episode
from wm_bringup.planning.tasks import make_pose_task, make_task

BACKENDS = ("learned", "physics", "straight", "still", "auto")


def run_episode(backend: str, seed: int, perceived: bool = False, **options: Any) -> Episode:
    """One task in closed loop; see ``wm_bringup.planning.pushing.run_episode``."""
    return _run_episode(backend, seed, perceived, **options)


def summary(episodes: list[Episode]) -> dict[str, Any]:
    """``success`` (fraction), ``plan_median_s``, ``plan_p95_s`` (per action in which something was imagined), and
    counts.
    """
    seconds = [s for e in episodes for s in e.plan_seconds]
    return {
        "success": float(np.mean([e.success for e in episodes])) if episodes else None,
        "plan_median_s": float(np.median(seconds)) if seconds else None,
        "plan_p95_s": float(np.percentile(seconds, 95)) if seconds else None,
        "episodes": len(episodes),
        "plans": len(seconds),
    }


def main(arguments: list[str] | None = None) -> int:
    """Entry point: a progress bar, a line for each task that failed, and the summary as JSON."""
    from rich.console import Console
    from rich.progress import Progress

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--backend", choices=BACKENDS, default="learned", help="default: %(default)s")
    parser.add_argument(
        "--episodes", type=int, default=50, help="tasks, of seeds from --first on (default: %(default)s)"
    )
    parser.add_argument("--first", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1, help="of the belief, for each path (default: %(default)s)")
    parser.add_argument(
        "--task", choices=("place", "push-t"), default="place", help="push-t: a T to a pose (default: %(default)s)"
    )
    parser.add_argument("--perceived", action="store_true", help="from perceived scene graphs (slow)")
    parser.add_argument("--out", type=Path, help="a folder: pictures of the tasks that failed, and the summary")
    given = parser.parse_args(arguments)
    console = Console()
    name = f"{given.task}_{given.backend}{'_perceived' if given.perceived else ''}"
    episodes: list[Episode] = []
    with Progress(console=console) as progress:
        make = make_pose_task if given.task == "push-t" else make_task
        bar = progress.add_task(f"planner, {given.task}, {given.backend}", total=given.episodes)
        for seed in range(given.first, given.first + given.episodes):
            episode = run_episode(
                given.backend,
                seed,
                given.perceived,
                task=make(seed),
                samples=given.samples,
                keep_steps=given.out is not None,
            )
            episodes.append(episode)
            if not episode.success:
                console.print(f"task {seed}: {episode.reason}")
                if given.out is not None:
                    from wm_bringup.planning.push_pictures import draw_episode

                    draw_episode(episode, given.out / f"{name}_{seed}.png")
            progress.advance(bar)
    found = summary(episodes)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    console.print_json(data={name: found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
