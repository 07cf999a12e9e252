"""The ``wm`` command. What a subcommand needs is imported when it runs, so that ``wm --help`` answers at once.

Over 400 lines: every subcommand is declared here with its options and hands them on, so that the whole command line can
be read in one place.
"""

from __future__ import annotations

if __name__ == "__main__":
    from wm_ros.nodes.startup import end_as_usual, end_quietly

    end_quietly(130)

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wm_ros.nodes.startup import interrupted

app = typer.Typer(
    help="A world model for robots: cameras in, a scene graph out, and imagined futures of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SegmenterOption = Annotated[
    str, typer.Option(help="auto, learned, geometric, or onnx (your own; docs/models.md).", show_default=False)
]
SegmenterModelOption = Annotated[
    Path | None, typer.Option(help="Its ONNX file; none: the shipped one.", show_default=False)
]
ReasonerOption = Annotated[str, typer.Option(help="auto, learned or geometric.", show_default=False)]
ReasonerModelOption = Annotated[
    Path | None, typer.Option(help="Its ONNX file; none: the shipped one.", show_default=False)
]

LevelOption = Annotated[
    str, typer.Option(help="Turn the world of a recording upright: auto (where its poses do not say), on or off.")
]

VECTOR_OPTIONS = {"--push": 4, "--velocity": 4, "--mass": 2, "--why": 3}
"""Options that take this many words at most; typer knows repeated options of one value only."""


def fold_vectors(arguments: list[str]) -> list[str]:
    """``--push 3 0 0 1`` as ``--push "3 0 0 1"``. The next option ends the vector; a wrong word is refused later."""
    folded: list[str] = []
    i = 0
    while i < len(arguments):
        word = arguments[i]
        folded.append(word)
        i += 1
        if word not in VECTOR_OPTIONS:
            continue
        numbers: list[str] = []
        while i < len(arguments) and len(numbers) < VECTOR_OPTIONS[word] and _is_value(arguments[i]):
            numbers.append(arguments[i])
            i += 1
        if numbers:
            folded[-1:] = [f"{word}={' '.join(numbers)}"]
    return folded


def _is_value(word: str) -> bool:
    if not word.startswith("-"):
        return True
    try:
        float(word)
    except ValueError:
        return False
    return True


def _version(value: bool) -> None:
    if value:
        from importlib import metadata

        print(f"wm {metadata.version('wm_bringup')}")
        raise typer.Exit()


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, print where it came from.")] = False,
) -> None:
    """Common options."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    scene: Annotated[str, typer.Option(help="A scene of wm_sim, or a scene file.")] = "demo",
    seed: Annotated[int, typer.Option(help="Of the scene.", min=0)] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer futures and frames.")] = False,
    segmenter: SegmenterOption = "",
    segmenter_model: SegmenterModelOption = None,
    reasoner: ReasonerOption = "",
    reasoner_model: ReasonerModelOption = None,
) -> None:
    """Simulate a table, perceive it, imagine futures, compare with the ground truth, write a report."""
    from wm_bringup.demo.demo import run_demo
    from wm_bringup.run.nodes import model_parameters

    perception = model_parameters(segmenter, segmenter_model, reasoner, reasoner_model)
    raise typer.Exit(run_demo(out, scene, seed, quick, perception) or 0)


@app.command()
def run(
    rgbd: Annotated[
        Path | None, typer.Option(help="Play a folder of color, depth and pose files.", show_default=False)
    ] = None,
    bag: Annotated[
        Path | None, typer.Option(help="Play a recording: MCAP file or rosbag2 folder.", show_default=False)
    ] = None,
    remap: Annotated[
        list[str] | None,
        typer.Option(metavar="/A:=/B", help="Read B for A; with --bag: play A as B; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep a recording of all topics and the logs here.")] = None,
    rate: Annotated[
        float, typer.Option(help="Speed of the recording, where perception keeps up.", min=0.01, max=100.0)
    ] = 1.0,
    lock_step: Annotated[
        bool, typer.Option("--lock-step/--free-running", help="A recording waits for perception, frame by frame.")
    ] = True,
    register: Annotated[
        str, typer.Option(help="Bring color onto depth: auto (where that is clear), on or off; with --rgbd.")
    ] = "auto",
    level: LevelOption = "auto",
    imagine: Annotated[bool, typer.Option("--imagine", help="Also imagine a few futures at the end.")] = False,
    duration: Annotated[float, typer.Option(help="End after so many seconds; 0: no limit.", min=0.0)] = 0.0,
    params_file: Annotated[
        list[Path] | None, typer.Option(help="ROS parameters of the nodes (YAML); repeatable.")
    ] = None,
    segmenter: SegmenterOption = "",
    segmenter_model: SegmenterModelOption = None,
    reasoner: ReasonerOption = "",
    reasoner_model: ReasonerModelOption = None,
) -> None:
    """Perceive and imagine: live topics, or a recording."""
    if rgbd is not None and bag is not None:
        raise typer.BadParameter("expected --rgbd or --bag, got both")
    from wm_bringup.run.nodes import model_parameters
    from wm_bringup.run.players import Playing

    perception = model_parameters(segmenter, segmenter_model, reasoner, reasoner_model)
    playing = Playing(rate, lock_step, register, level)
    plain = not (remap or params_file or duration) and lock_step
    if rgbd is not None and plain:
        from wm_bringup.demo.real_clip import run_clip

        raise typer.Exit(run_clip(rgbd, out if out is not None else Path("out/run"), imagine, perception, playing) or 0)
    from wm_bringup.run import live

    code = live.run(
        rgbd=rgbd,
        bag=bag,
        remaps=remap or (),
        out=out,
        playing=playing,
        imagine=imagine,
        duration_s=duration,
        params_files=params_file or (),
        perception=perception,
    )
    raise typer.Exit(code)


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="The MCAP file; latency.json lies beside it.")] = Path("out/record.mcap"),
    duration: Annotated[float, typer.Option(help="Seconds; 0: until Ctrl-C.", min=0.0)] = 0.0,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="REGEX", help="Leave out topics that match; repeatable.")
    ] = None,
    compression: Annotated[str, typer.Option(help="zstd, lz4 or none.")] = "zstd",
) -> None:
    """Record every topic of the graph into an MCAP file. What wm replay needs: images, camera info, tf."""
    from wm_bringup.recording import recorder

    words = ["--out", str(out), "--duration", f"{duration:g}", "--compression", compression]
    for pattern in exclude or ():
        words += ["--exclude", pattern]
    raise typer.Exit(recorder.main(words))


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help="MCAP file (unfinished ones too) or rosbag2 folder.")],
    out: Annotated[Path, typer.Option(help="Folder for scene_graphs.mcap and replay.json.")] = Path("out/replay"),
    rate: Annotated[
        float, typer.Option(help="1: as fast as recorded; 0: as fast as it goes. The graphs are the same.", min=0.0)
    ] = 0.0,
    remap: Annotated[list[str] | None, typer.Option(metavar="/A:=/B", help="Read A as B; repeatable.")] = None,
    params_file: Annotated[
        list[Path] | None, typer.Option(help="ROS parameters of perception (YAML); repeatable.")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write overlay images.")] = False,
    level: LevelOption = "auto",
    segmenter: SegmenterOption = "",
    segmenter_model: SegmenterModelOption = None,
    reasoner: ReasonerOption = "",
    reasoner_model: ReasonerModelOption = None,
) -> None:
    """A recording through perception in lock-step: the same scene graphs each time (docs/replay.md)."""
    from wm_bringup.recording import replay as program
    from wm_bringup.run.nodes import model_parameters

    perception = model_parameters(segmenter, segmenter_model, reasoner, reasoner_model)
    raise typer.Exit(
        program.run(
            bag,
            out,
            rate=rate,
            remaps=remap or (),
            params_files=params_file or (),
            perception=perception,
            overlay=overlay,
            level=level,
        )
    )


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="MCAP file, or folder of wm replay, run --out or demo.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
    topic: Annotated[str, typer.Option(help="Of the scene graphs.")] = "/wm/scene_graph",
    tolerance: Annotated[float, typer.Option(help="Numbers may differ by this; 0: to the last bit.", min=0.0)] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Where two runs differ first: frame, object, field, by how much. Status 0: identical, 1: different, 2: error."""
    from wm_bringup.environment import make_console
    from wm_bringup.recording import run_comparison

    try:
        found, warnings = run_comparison.compare(a, b, topic, tolerance)
    except run_comparison.CompareError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(found.as_json())
    else:
        run_comparison.print_comparison(found, (str(a), str(b)), make_console(), tolerance)
    raise typer.Exit(0 if found.identical else 1)


@app.command()
def sim(
    scene: Annotated[str, typer.Option(help="A scene of wm_sim, or a scene file.")] = "demo",
    seed: Annotated[int, typer.Option(help="Of colors, sizes, poses and noise.", min=0)] = 0,
    namespace: Annotated[str, typer.Option(help="Of its topics, but for /clock and /tf.")] = "",
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME:=VALUE", help="Another parameter; repeatable.")
    ] = None,
    scenes: Annotated[bool, typer.Option("--list", help="Print the names of the scenes and exit.")] = False,
) -> None:
    """Run the simulated RGB-D camera alone."""
    from wm_bringup.run.node_command import node_command

    if scenes:
        from wm_sim.scene_model import scene_names

        print("\n".join(scene_names()))
        return
    command = node_command("wm_sim.node", namespace, {"scene": scene, "seed": seed})
    for text in param or ():
        if not all(text.partition(":=")):
            raise typer.BadParameter(f"--param: got {text!r}, expected NAME:=VALUE")
        command += ["-p", text]
    # In this process's place: signals and the terminal are the node's.
    os.execv(command[0], command)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to listen to topics; 0: look at the installation alone.", min=0.0, max=600.0)
    ] = 3.0,
    topics_only: Annotated[
        bool, typer.Option("--topics-only", help="Look at topics and frames, not at the installation.")
    ] = False,
    namespace: Annotated[str, typer.Option(help="Of the two nodes.")] = "wm",
    params_file: Annotated[
        list[Path] | None, typer.Option(help="ROS parameters of the nodes (YAML); repeatable.")
    ] = None,
    color_topic: Annotated[str | None, typer.Option(help="Color images.", show_default=False)] = None,
    depth_topic: Annotated[str | None, typer.Option(help="Depth images.", show_default=False)] = None,
    camera_info_topic: Annotated[str | None, typer.Option(help="Intrinsics.", show_default=False)] = None,
    world_frame: Annotated[str | None, typer.Option(help="Fixed frame, z up.", show_default=False)] = None,
    camera_frame: Annotated[
        str | None, typer.Option(help="Optical frame; none: that of the images.", show_default=False)
    ] = None,
    pose_source: Annotated[str | None, typer.Option(help="tf, odometry or fixed.", show_default=False)] = None,
    odometry_topic: Annotated[str | None, typer.Option(help="For --pose-source odometry.", show_default=False)] = None,
    use_sim_time: Annotated[
        bool | None,
        typer.Option("--use-sim-time/--no-use-sim-time", help="Read /clock; none: where it is published."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw what perception sees into this file (PNG).", show_default=False)
    ] = None,
) -> None:
    """Look at the installation, the topics and a frame of each; say what is wrong and what to do.

    Topics, frames and transports are those of perception's parameters: the defaults, then --params-file, then the
    options here. Exit status 1: something needed is missing or wrong, so that wm cannot work.
    """
    from wm_bringup.doctor import doctor as checks

    if pose_source not in (None, "tf", "odometry", "fixed"):
        raise typer.BadParameter(f"--pose-source: got {pose_source!r}, expected tf, odometry or fixed")
    if (picture is not None or topics_only) and not wait:
        raise typer.BadParameter(
            f"{'--picture' if picture else '--topics-only'}: got --wait 0, expected a time to listen"
        )
    given = {
        "color_topic": color_topic,
        "depth_topic": depth_topic,
        "camera_info_topic": camera_info_topic,
        "world_frame": world_frame,
        "camera_frame": camera_frame,
        "pose_source": pose_source,
        "odometry_topic": odometry_topic,
    }

    def graph() -> list[checks.Finding]:
        from wm_bringup.doctor import graph
        from wm_bringup.doctor.parameters import read_parameters

        name = "/" + namespace.strip("/")
        try:
            parameters, sim_time, said = read_parameters(params_file or (), name, given)
        except ValueError as error:
            advice = "correct it; perception refuses it, too"
            return [checks.Finding("topics", "parameters", checks.ERROR, str(error), advice)]
        sim_time = use_sim_time if use_sim_time is not None else sim_time
        options = graph.GraphOptions(parameters, name, wait, sim_time)
        return graph.check_graph(options, picture, said)

    findings = checks.examine(graph if wait else None, not topics_only)
    if as_json:
        print(checks.report_json(findings))
    else:
        checks.print_report(findings)
    raise typer.Exit(1 if any(f.level == checks.ERROR for f in findings) else 0)


@app.command()
def imagine(
    remove: Annotated[list[str] | None, typer.Option(metavar="ID", help="What if it were not there.")] = None,
    push: Annotated[list[str] | None, typer.Option(metavar="ID X Y Z", help="An impulse on it [N s].")] = None,
    mass: Annotated[list[str] | None, typer.Option(metavar="ID FACTOR", help="What if it weighed so.")] = None,
    velocity: Annotated[list[str] | None, typer.Option(metavar="ID X Y Z", help="It moves so [m/s].")] = None,
    why: Annotated[
        list[str] | None,
        typer.Option(metavar="EVENT ID [ID]", help="Without what would it not happen? (fall 3; contact 3 4)"),
    ] = None,
    horizon: Annotated[float, typer.Option(help="How far ahead [s].")] = 2.0,
    samples: Annotated[int, typer.Option(help="Samples of the perceived state.", min=1)] = 1,
    backend: Annotated[str, typer.Option(help="auto, learned, physics, straight or still.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the samples.", min=0)] = 0,
    namespace: Annotated[str, typer.Option(help="Of the imagination node.")] = "wm",
    timeout: Annotated[float, typer.Option(help="Wait so long for the answer [s].", min=0.1)] = 60.0,
) -> None:
    """Imagine futures of a running graph. Each option adds a future; none: a few that fit the scene."""
    from wm_bringup import imagine_cli

    given = imagine_cli.hypotheses_of(remove or (), push or (), mass or (), velocity or ())
    answer = imagine_cli.imagine(
        given if len(given) > 1 else None,
        why=why or (),
        horizon_s=horizon,
        samples=samples,
        backend=backend,
        seed=seed,
        namespace=namespace,
        timeout_s=timeout,
    )
    imagine_cli.print_answer(answer)
    imagine_cli.print_reasons(answer)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One of benchmarks/; none: all.", show_default=False)] = None,
) -> None:
    """Measure; results in out/bench/. Further arguments are the benchmark's own."""
    import subprocess

    from wm_bringup.environment import workspace_root

    root = workspace_root()
    folder = root / "benchmarks" if root is not None else None
    programs = {*folder.glob("*.py"), *(p.parent for p in folder.glob("*/__main__.py"))} if folder is not None else ()
    names = sorted(p.stem for p in programs)
    if not names:
        raise FileNotFoundError(f"no benchmarks in {folder or 'an installation without its checkout'}")
    if name is not None:
        if name not in names:
            raise typer.BadParameter(f"got {name!r}, expected one of {', '.join(names)}")
        names = [name]
    failed = []
    for program in names:
        print(f"== {program}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{program}", *context.args], cwd=root).returncode:
            failed.append(program)
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
        raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def export(context: typer.Context) -> None:
    """Models to ONNX in several precisions and to TensorRT engines, with a parity report. --help has its options."""
    import subprocess
    from importlib.util import find_spec

    from wm_bringup.environment import workspace_root

    root = workspace_root()
    if root is None or not (root / "export" / "__main__.py").is_file():
        raise FileNotFoundError("no export/ in an installation without its checkout")
    if find_spec("torch") is None or find_spec("onnx") is None:
        raise RuntimeError("export needs torch and onnx; run: make setup WITH='training export'")
    # Paths of a model of one's own are relative to where the command was given.
    words = [str(Path(w).resolve()) if before in ("--onnx", "--out") else w for before, w in _pairs(context.args)]
    raise typer.Exit(subprocess.run([sys.executable, "-m", "export", *words], cwd=root).returncode)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def plan(context: typer.Context) -> None:
    """Push an object to a place on the simulated table, planning by imagined futures. --help has its options."""
    from wm_bringup.planning import plan as program

    raise typer.Exit(program.main(context.args))


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """Each word with the one before it."""
    return list(zip(["", *words], words, strict=False))


def main(arguments: list[str] | None = None) -> int:
    """Entry point. An error is one line and status 1, with ``--debug`` a traceback; Ctrl-C is status 130."""
    words = fold_vectors(list(sys.argv[1:] if arguments is None else arguments))
    debug = "--debug" in words  # before or behind the subcommand
    words = [word for word in words if word != "--debug"]
    try:
        code = app(args=words, prog_name="wm", standalone_mode=True)
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ImportError) and interrupted():
            print("interrupted", file=sys.stderr)
            return 130
        text = str(error).strip() or type(error).__name__
        if type(error).__module__ == "builtins" and not isinstance(error, (OSError, ValueError, RuntimeError)):
            text = f"{type(error).__name__}: {text} (wm --debug {' '.join(words)} says where)"
        print(f"error: {text}", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    end_as_usual()
    sys.exit(main())
