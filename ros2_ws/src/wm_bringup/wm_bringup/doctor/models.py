"""Inference runtimes, the models and engines that they run, and the caches."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from wm_bringup.doctor.findings import ERROR, NOTE, OK, WARNING, Finding
from wm_bringup.doctor.installation import SETUP, first_line


def check_inference() -> list[Finding]:
    """Which runtime ``backend: auto`` takes here, and why not the others."""
    from wm_core.inference.backends import available_backends

    statuses = available_backends()
    chosen = next((status.name for status in statuses if status.available), None)
    findings = [
        Finding(
            "inference",
            status.name,
            OK if status.available else NOTE,
            f"{status.reason}{'; in use (first that works)' if status.name == chosen else ''}",
            values={"in_use": status.name == chosen},
        )
        for status in statuses
    ]
    if chosen is None:
        findings.append(Finding("inference", "runtime", ERROR, "none works", SETUP))
    return findings


def check_engines() -> list[Finding]:
    """The TensorRT engines that are kept for the GPU of this machine: of what they are, and whether still of use."""
    from wm_core.inference import engine_cache, engine_file

    findings = []
    for path, head in engine_cache.cached():
        if not isinstance(head, engine_file.EngineFile):
            advice = f"it is built again when it is needed; to be rid of it: rm {path}"
            findings.append(Finding("engines", path.name, WARNING, first_line(head), advice))
            continue
        key = head.key
        fits, why = engine_cache.state_of(head)
        found = (
            f"{key.runtime} {key.runtime_version}, {key.gpu or ', '.join(key.architectures)}, {key.precision}, "
            f"{head.size / 2**20:.1f} MiB, built in {head.build_seconds:.1f} s; {why}"
        )
        values = {"file": str(path), "bytes": head.size, "fits": fits, "source": head.source}
        findings.append(Finding("engines", path.name, OK if fits else NOTE, found, values=values))
    if not findings:
        findings.append(Finding("engines", "cache", NOTE, f"none in {engine_cache.cache_folder()}"))
    return findings


def check_models() -> list[Finding]:
    """The trained models that came with wm: whether they are there, are those of their cards, and load."""
    from wm_perception.models.files import SHIPPED, ModelError, sha256, shipped_model
    from wm_perception.models.loading import load_shipped

    findings = []
    for name in SHIPPED:
        path = shipped_model(name)
        if path is None:
            advice = f"to have it: make train-{name}"
            findings.append(Finding("models", name, NOTE, f"not installed; {name} auto is geometric", advice))
            continue
        digest = sha256(path)
        values: dict[str, Any] = {"file": str(path), "sha256": digest, "bytes": path.stat().st_size, "loads": False}
        variants = {p.name: sha256(p) for p in sorted(path.parent.glob(f"{name}_*.onnx"))}
        values["precisions"] = variants
        found = f"{path} (sha256 {digest})"
        try:
            begin = time.monotonic()
            load_shipped(name)
            values["loads"] = True
            found += f", loads in {1e3 * (time.monotonic() - begin):.0f} ms"
        except ModelError as error:
            advice = f"perception refuses it; train it again (make train-{name}), or set {name}: geometric"
            findings.append(Finding("models", name, ERROR, f"{first_line(error)} (sha256 {digest})", advice, values))
            continue
        wrong = [f for f, d in {path.name: digest, **variants}.items() if _stated_sha256(path, f) != d]
        if wrong:
            card = path.with_suffix(".json").name
            stated = _stated_sha256(path, wrong[0])
            file = "file" if wrong[0] == path.name else wrong[0]
            what = f"its card {card} is of a {file} with sha256 {stated}" if stated else f"no card {card}"
            if wrong[0] != path.name and not stated:
                what = f"its card {card} does not have {wrong[0]}"
            advice = "the card's figures may not hold for it; write both with one training run"
            findings.append(Finding("models", name, WARNING, f"{found}; {what}", advice, values))
            continue
        findings.append(Finding("models", name, OK, found, values=values))
    return findings


def _stated_sha256(model: Path, file: str) -> str:
    """What the card beside a model says of one of its files; empty where it says nothing."""
    try:
        card = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
        return str(card["files"][file]["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def check_dynamics_model() -> list[Finding]:
    """The learned dynamics that came with wm: whether it is there, is that of its card, and loads."""
    from wm_core.inference.base import InferenceError
    from wm_dynamics.contact_step.network import DynamicsNetwork, default_model
    from wm_perception.models.files import sha256

    path = default_model()
    if not path.is_file():
        advice = "imagination's auto takes physics without it; to have it: make train-dynamics"
        return [Finding("models", "dynamics", NOTE, "not installed", advice)]
    digest = sha256(path)
    values: dict[str, Any] = {"file": str(path), "sha256": digest, "bytes": path.stat().st_size, "loads": False}
    found = f"{path} (sha256 {digest})"
    try:
        begin = time.monotonic()
        DynamicsNetwork(path, quick=True)
        values["loads"] = True
        found += f", loads in {1e3 * (time.monotonic() - begin):.0f} ms"
    except InferenceError as error:
        advice = "imagination's auto takes physics; train it again (make train-dynamics)"
        return [Finding("models", "dynamics", ERROR, f"{first_line(error)} (sha256 {digest})", advice, values)]
    stated = _stated_sha256(path, path.name)
    if stated != digest:
        card = path.with_suffix(".json").name
        what = f"its card {card} is of a file with sha256 {stated}" if stated else f"no card {card}"
        advice = "the card's figures may not hold for it; write both with one training run"
        return [Finding("models", "dynamics", WARNING, f"{found}; {what}", advice, values)]
    return [Finding("models", "dynamics", OK, found, values=values)]


def check_caches() -> list[Finding]:
    """The folders in which compiled code and engines are kept: without them every start compiles anew."""
    from wm_core.inference import engine_cache
    from wm_core.private_folder import UntrustedFolderError, check_folder
    from wm_dynamics.contact_step import compile_cache

    findings = []
    for name, folder, cost in (
        ("compiled step", compile_cache.cache_folder(), "the first request of every start waits for the compiler"),
        ("engines", engine_cache.cache_folder(), "GPU engines are built at every start"),
    ):
        files = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
        size = sum(p.stat().st_size for p in files)
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        values = {"folder": str(folder), "files": len(files), "bytes": size}
        if not os.access(existing, os.W_OK | os.X_OK):
            advice = f"make {existing} writable, or name another folder (NUMBA_CACHE_DIR, WM_ENGINE_CACHE)"
            findings.append(Finding("caches", name, WARNING, f"{folder} cannot be written: {cost}", advice, values))
            continue
        try:
            check_folder(folder)
        except UntrustedFolderError as error:
            found, _, advice = str(error).partition("; run: ")
            findings.append(Finding("caches", name, WARNING, f"{found}: {cost}", advice, values))
            continue
        what = f"{len(files)} files, {size / 2**20:.1f} MiB" if files else "empty: filled at the first use"
        findings.append(Finding("caches", name, OK, f"{folder} ({what})", values=values))
    return findings
