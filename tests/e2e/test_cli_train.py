"""`tw train`, `tw show` and `tw doctor` from the command line to the files they leave."""

import contextlib
import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.cli.main import main
from tilewright.cli.show import compile_step
from tilewright.graph.graph import Graph
from tilewright.interop.safetensors import load_file
from tilewright.kernel.text import parse_kernel
from tilewright.lang.check import check
from tilewright.runtime import builtin

REGRESSION = """
dataset Points:
    source = csv("points.csv")
    target = "y"
    normalize = true
model Net:
    input 3
    dense 8 tanh
    dense 1 linear
train:
    model = Net
    data = Points
    loss = {loss}
    optimizer = {optimizer}
    epochs = {epochs}
    batch = 16
    seed = 1
{more}evaluate:
    metrics = [mae, rmse]
export:
    format = safetensors
    path = "models/net.safetensors"
"""

CLASSES = """
params:
    hidden = 8
dataset Points:
    source = csv("classes.csv")
    target = "kind"
model Net:
    input 3
    dense $hidden relu
    {last}
train:
    model = Net
    data = Points
    loss = {loss}
    optimizer = adam(lr=0.05)
    epochs = 8
    batch = 16
evaluate:
    metrics = [accuracy, precision, recall, f1, auc]
export:
    format = safetensors
    path = "net.safetensors"
"""


def write_points(folder: Path, rows: int = 90) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=rows)
    lines = [",".join(f"{v:.6f}" for v in (*a, b)) for a, b in zip(x, y, strict=True)]
    (folder / "points.csv").write_text("a,b,c,y\n" + "\n".join(lines) + "\n")
    words = np.array(["cold", "warm"])[(y > 0).astype(int)]
    lines = [",".join([*(f"{v:.6f}" for v in a), w]) for a, w in zip(x, words, strict=True)]
    (folder / "classes.csv").write_text("a,b,c,kind\n" + "\n".join(lines) + "\n")


@pytest.fixture
def folder(in_tmp_path: Path) -> Path:
    write_points(in_tmp_path)
    return in_tmp_path


def regression(
    folder: Path, loss: str = "mse", optimizer: str = "adam(lr=0.02)", epochs: int = 4, more: str = ""
) -> Path:
    lines = "".join(f"    {line}\n" for line in more.splitlines())
    path = folder / "net.kyn"
    path.write_text(REGRESSION.format(loss=loss, optimizer=optimizer, epochs=epochs, more=lines))
    return path


def train(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    """The results of a training as its JSON."""
    assert main(["train", *map(str, words), "--json"]) == 0, capsys.readouterr().err
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def fail(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """What a training that must fail says on stderr."""
    assert main(["train", *map(str, words)]) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# ---- the examples ------------------------------------------------------------------------------------------


def test_the_digits_example_reaches_its_accuracy(
    repository: Path, in_tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = repository / "examples" / "digits" / "digits.kyn"
    assert main(["train", str(program), "--out", "out"]) == 0
    printed = capsys.readouterr().out
    manifest = json.loads((in_tmp_path / "out" / "run_manifest.json").read_text())
    assert manifest["metrics"]["accuracy"] >= 0.96
    assert f"accuracy       {manifest['metrics']['accuracy']:.4f}" in printed
    assert "model.safetensors" in printed and "run_manifest.json" in printed and "samples/s" in printed
    model = in_tmp_path / "out" / "model.safetensors"
    assert manifest["outputs"]["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    data = program.parent / "digits.csv"
    assert manifest["data"] == {str(data): hashlib.sha256(data.read_bytes()).hexdigest()}
    assert manifest["sources"] == {str(program): hashlib.sha256(program.read_bytes()).hexdigest()}
    assert manifest["seed"] == 42 and manifest["environment"]["python"]

    # The exported file is enough to repeat the predictions, without this package's layers.
    exported = load_file(model)
    norm = json.loads(exported.metadata["normalization"])
    rows = np.loadtxt(data, delimiter=",", skiprows=1)
    x = (rows[:, :-1] - norm["mean"]) / norm["scale"]
    t = exported.tensors
    hidden = np.maximum(x @ t["0.weight"].T + t["0.bias"], 0)
    found = (hidden @ t["3.weight"].T + t["3.bias"]).argmax(1)
    assert json.loads(exported.metadata["classes"]) == [str(n) for n in range(10)]
    assert (found == rows[:, -1]).mean() > 0.98


@pytest.mark.parametrize("name", ["digits/digits_cnn.kyn", "diabetes/diabetes.kyn"])
def test_the_other_examples_train(
    name: str, repository: Path, in_tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [run] = train(capsys, repository / "examples" / name, "--out", in_tmp_path)["runs"]
    if "cnn" in name:
        assert run["metrics"]["accuracy"] >= 0.96
    else:
        assert 40 < run["metrics"]["mae"] < 60  # a constant prediction is wrong by 65 on average


# ---- every word of the language that trains ----------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "l1", "mae", "huber(delta=0.5)"])
@pytest.mark.parametrize("optimizer", ["adam(lr=0.05)"])
def test_regression_losses(
    folder: Path, loss: str, optimizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [run] = train(capsys, regression(folder, loss, optimizer, epochs=20))["runs"]
    assert run["metrics"]["mae"] < 0.8  # the targets deviate by 2.3
    assert run["epochs"] == 20


@pytest.mark.parametrize(
    "optimizer",
    [
        "sgd(lr=0.05)",
        "sgd(lr=0.02, momentum=0.9, nesterov=true, weight_decay=1e-4)",
        "adam(lr=0.05, betas=[0.8, 0.99])",
        "adamw(lr=0.05, weight_decay=0.01)",
        "rmsprop(lr=0.02, momentum=0.5)",
    ],
)
def test_optimizers(folder: Path, optimizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    [run] = train(capsys, regression(folder, optimizer=optimizer, epochs=20))["runs"]
    assert run["metrics"]["rmse"] < 1.0


@pytest.mark.parametrize(
    ("loss", "last"),
    [
        ("cross_entropy", "dense 2 linear"),
        ("nll", "dense 2 log_softmax"),
        ("bce", "dense 1 sigmoid"),
        ("bce", "dense 1 linear"),
    ],
)
def test_classification_losses_and_all_their_metrics(
    folder: Path, loss: str, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "net.kyn").write_text(CLASSES.format(loss=loss, last=last))
    [run] = train(capsys, folder / "net.kyn")["runs"]
    metrics = run["metrics"]
    assert set(metrics) == {"loss", "accuracy", "precision", "recall", "f1", "auc"}
    assert metrics["accuracy"] > 0.8 and metrics["auc"] > 0.9


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        ("step(step_size=2, gamma=0.5)", [0.02, 0.02, 0.01, 0.01]),
        ("cosine", [0.02, 0.02 * 0.8535533905932737, 0.01, 0.02 * 0.14644660940672624]),
        ("onecycle(max_lr=0.1)", None),
    ],
)
def test_schedules(
    folder: Path, scheduler: str, rates: list[float] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    train(capsys, regression(folder, more=f"scheduler = {scheduler}"))
    manifest = json.loads((folder / "models" / "run_manifest.json").read_text())
    found = [epoch["lr"] for epoch in manifest["training"]["history"]]
    if rates is None:
        assert found[0] == pytest.approx(0.004) and max(found) > 0.05 and found[-1] < 0.05
    else:
        assert found == pytest.approx(rates)


def test_every_layer_trains(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = """
    input 64
    reshape 1 8 8
    conv2d 4 kernel=3 padding=same relu
    batchnorm
    conv2d 4 kernel=[2, 4] padding=same stride=1 leaky_relu
    maxpool 2
    repeat 2:
        conv2d 4 kernel=3 padding=1 groups=2 bias=false gelu
    avgpool 2 stride=1
    flatten
    layernorm
    dropout 0.1
    dense 12 silu
    dense 6 softmax
    dense 10 linear
"""
    digits = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.csv"
    rows = digits.read_text().splitlines()[:200]
    (folder / "digits.csv").write_text("\n".join(rows) + "\n")
    (folder / "net.kyn").write_text(
        'dataset D:\n    source = csv("digits.csv")\n    target = "digit"\n'
        f"model Net:{layers}train:\n    model = Net\n    data = D\n    loss = cross_entropy\n"
        "    optimizer = adam(lr=0.01)\n    epochs = 12\n    batch = 32\nevaluate:\n    metrics = [accuracy]\n"
    )
    [run] = train(capsys, folder / "net.kyn")["runs"]
    losses = [
        e["loss"] for e in json.loads((folder / "run_manifest.json").read_text())["training"]["history"]
    ]
    assert losses[-1] < 0.9 * losses[0] and run["model"] is None


def test_an_embedding_reads_whole_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 6, (80, 2))
    lines = [f"{a},{b},{int(a == b)}" for a, b in words]
    (folder / "words.csv").write_text("first,second,same\n" + "\n".join(lines) + "\n")
    (folder / "net.kyn").write_text(
        'dataset D:\n    source = csv("words.csv")\n    target = "same"\n'
        "model Net:\n    input 2\n    embedding 6 8\n    flatten\n    dense 16 relu\n    dense 1 linear\n"
        "train:\n    model = Net\n    data = D\n    loss = bce\n    optimizer = adam(lr=0.05)\n    epochs = 30\n"
    )
    train(capsys, folder / "net.kyn")
    history = json.loads((folder / "run_manifest.json").read_text())["training"]["history"]
    assert history[-1]["loss"] < 0.1


def test_compiled_and_plain_training_give_the_same_losses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    for flag in ("true", "false"):
        train(capsys, regression(folder, epochs=3, more=f"compile = {flag}"))
        manifest = json.loads((folder / "models" / "run_manifest.json").read_text())
        losses.append([epoch["loss"] for epoch in manifest["training"]["history"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_early_stopping(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "early_stop = early_stop(patience=2, mode=max, monitor=rmse)"  # rmse falls: nothing gets better
    [run] = train(capsys, regression(folder, epochs=50, more=more))["runs"]
    assert run["stopped_early"] and run["epochs"] == 3


def test_a_sweep_runs_the_product_and_tells_the_best(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = REGRESSION.format(loss="mse", optimizer="adam(lr=$lr)", epochs=3, more="").replace(
        "dense 8", "dense $width"
    )
    (folder / "net.kyn").write_text(f"sweep:\n    lr = [1e-6, 0.1]\n    width = [4, 8]\n{text}")
    assert main(["train", str(folder / "net.kyn")]) == 0
    printed = capsys.readouterr().out
    assert "run 3 of 4: lr=0.1,width=4" in printed and "best: lr=0.1" in printed
    names = {f"models/lr={lr},width={width}" for lr in ("1e-06", "0.1") for width in (4, 8)}
    wanted = {f"{name}/{file}" for name in names for file in ("net.safetensors", "run_manifest.json")}
    assert files(folder) == {"net.kyn", "points.csv", "classes.csv", *wanted}


def test_options_override_the_program(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net.kyn").write_text(CLASSES.format(loss="cross_entropy", last="dense 2 linear"))
    words = ("--param", "hidden=3", "--epochs", "2", "--seed", "7", "--device", "cpu", "--out", "elsewhere")
    [run] = train(capsys, folder / "net.kyn", *words)["runs"]
    assert run["epochs"] == 2 and run["params"] == {"hidden": 3}
    manifest = json.loads((folder / "elsewhere" / "run_manifest.json").read_text())
    assert manifest["seed"] == 7
    assert load_file(folder / "elsewhere" / "net.safetensors").tensors["0.weight"].shape == (3, 3)
    assert not (folder / "net.safetensors").exists()
    assert main(["train", str(folder / "net.kyn"), "--epochs", "1", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_progress_bar(folder: Path) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "tilewright", "train", str(regression(folder, epochs=3))]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
        while chunk := os.read(master, 4096):
            shown += chunk
    os.close(master)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "epoch 3/3" in text and "samples/s" in text and "left" in text
    assert re.search(r"loss \d+\.\d", text)
    assert "manifest" in text.splitlines()[-1]


# ---- repeatability -----------------------------------------------------------------------------------------


def test_one_seed_gives_one_model_at_any_number_of_threads(folder: Path) -> None:
    digests = []
    program = regression(folder, epochs=2, more="deterministic = true")
    for number, threads in enumerate(("1", "2", "1")):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TW_THREADS": threads}
        command = [
            sys.executable,
            "-m",
            "tilewright",
            "train",
            str(program),
            "--quiet",
            "--out",
            f"run{number}",
        ]
        subprocess.run(command, check=True, env=environment, timeout=120)
        digests.append(hashlib.sha256((folder / f"run{number}" / "net.safetensors").read_bytes()).hexdigest())
    assert len(set(digests)) == 1


@pytest.mark.parametrize("extra", ["", ", async_save=true"])
def test_an_interrupted_run_resumes_to_the_same_model(
    folder: Path, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = f'scheduler = cosine(t_max=6)\ncheckpoint = checkpoint(every_n=2, path="ck/net"{extra})'
    train(capsys, regression(folder, epochs=6, more=more), "--out", "whole")
    train(capsys, regression(folder, epochs=2, more=more), "--out", "parts")
    before = load_file(folder / "parts" / "net.safetensors").tensors["0.weight"].copy()
    assert main(["train", str(regression(folder, epochs=6, more=more)), "--out", "parts"]) == 0
    assert "resumed after 2" in capsys.readouterr().out
    whole, parts = (load_file(folder / d / "net.safetensors").tensors for d in ("whole", "parts"))
    assert (before != parts["0.weight"]).any()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, parts[name])
    manifest = json.loads((folder / "parts" / "run_manifest.json").read_text())
    assert manifest["training"]["resumed_at"] == 2 and len(manifest["training"]["history"]) == 6


def heeds_ctrl_c() -> None:
    """In a process about to start: a shell lets its background jobs, such as a whole test run, ignore the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("extra", ["", ", async_save=true"])
def test_ctrl_c_keeps_the_checkpoint_and_says_so(
    folder: Path, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real process and a real signal: one line for the user, exit code 130, and the same command goes on."""
    more = f'checkpoint = checkpoint(path="ck/net"{extra})'
    program = regression(folder, epochs=1_000_000, more=more)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tilewright", "train", str(program)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=heeds_ctrl_c,
    ) as running:  # fmt: skip
        checkpoint = folder / "ck" / "net.checkpoint.safetensors"
        deadline = time.monotonic() + 100
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        try:
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130 and "Traceback" not in said
    found = re.fullmatch(
        r"interrupted\ntraining was interrupted in epoch (\d+) of 1000000; (.*) holds epoch (\d+), .*\n", said
    )
    assert found and Path(found[2]) == checkpoint
    saved = json.loads(load_file(checkpoint).metadata["state"])["epoch"]
    assert 0 <= saved - int(found[3]) <= 1 and int(found[1]) - saved in (0, 1)
    assert main(["train", str(regression(folder, epochs=saved + 2, more=more))]) == 0
    assert f"resumed after {saved}" in capsys.readouterr().out


def test_a_checkpoint_of_another_run_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = 'checkpoint = checkpoint(path="ck/net")'
    train(capsys, regression(folder, more=more))
    said = fail(capsys, regression(folder, more=more), "--seed", "99")
    assert "is of another run: it differs in `seed`; remove" in said
    checkpoint = folder / "ck" / "net.checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-8])
    assert "cut short" in fail(capsys, regression(folder, more=more))
    checkpoint.write_bytes((folder / "models" / "net.safetensors").read_bytes())
    assert "is not a checkpoint" in fail(capsys, regression(folder, more=more))


# ---- what can go wrong -------------------------------------------------------------------------------------


def test_a_missing_program_and_missing_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no.kyn" in fail(capsys, folder / "no.kyn")
    program = regression(folder)
    (folder / "points.csv").unlink()
    said = fail(capsys, program)
    assert 'there is no data file "points.csv"' in said and "^^^^" in said
    assert files(folder) == {"net.kyn", "classes.csv"}


def test_broken_data_names_row_and_column(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "points.csv").read_text().splitlines()
    text[4] = "1.0,oops,2.0,3.0"
    (folder / "points.csv").write_text("\n".join(text))
    said = fail(capsys, regression(folder))
    assert "oops" in said and "`b`" in said and "points.csv:5" in said
    assert files(folder) == {"net.kyn", "classes.csv", "points.csv"}


def test_places_that_cannot_be_written_are_refused_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "models").write_text("a file where the directory should be")
    said = fail(capsys, regression(folder))
    assert "cannot write" in said and "epoch" not in said
    assert fail(capsys, regression(folder), "--out", folder / "net.kyn").startswith("error: cannot write")


def test_more_memory_than_there_is_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = folder / "classes.kyn"
    program.write_text(CLASSES.format(last="dense 2 linear", loss="cross_entropy"))
    said = fail(capsys, program, "--param", "hidden=2147483647")
    assert said.startswith("error: there is not enough memory: ") and said.count("\n") == 1


def test_a_full_disk_while_exporting_leaves_no_half_written_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = regression(folder)
    train(capsys, program)
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    real = os.write

    def full(handle: int, data: Any) -> int:
        if len(data) > 100:  # the probes that come first are smaller
            real(handle, data[:50])
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", full)
    said = fail(capsys, program, "--seed", "5")
    monkeypatch.undo()
    assert "net.safetensors: No space left on device; free some space" in said
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_a_full_disk_leaves_no_empty_directory(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = regression(folder)
    before = sorted(folder.rglob("*"))
    real = os.write

    def full(handle: int, data: Any) -> int:
        if len(data) > 100:  # the probes that come first are smaller
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", full)
    assert "No space left on device" in fail(capsys, program)
    monkeypatch.undo()
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch = 16", "batch = 16\n    device = cuda", "device `cuda` is not supported"),
        ("format = safetensors", "format = onnx", "format `onnx` is not supported"),
    ],
)
def test_what_this_version_lacks_is_said_before_training(
    folder: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = regression(folder)
    program.write_text(program.read_text().replace(old, new))
    said = fail(capsys, program)
    assert (
        message in said
        and "error[KYN123]" in said
        and "^^^^" in said
        and new.splitlines()[-1].strip() in said
    )
    assert files(folder) == {"net.kyn", "classes.csv", "points.csv"}


def test_a_training_that_diverges_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = regression(folder, optimizer="sgd(lr=1e30)", epochs=5)
    said = fail(capsys, program)
    assert "the loss became" in said and "lower learning rate" in said
    assert files(folder) == {"net.kyn", "classes.csv", "points.csv"}


def test_metrics_need_held_out_rows_that_they_can_measure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = folder / "net.kyn"
    program.write_text(CLASSES.format(loss="cross_entropy", last="dense 2 linear"))
    rows = (folder / "classes.csv").read_text().splitlines()
    ordered = [rows[0], *sorted(rows[1:], key=lambda row: row.endswith("warm"))]
    (folder / "classes.csv").write_text("\n".join(ordered))
    text = program.read_text().replace('target = "kind"', 'target = "kind"\n    shuffle = false')
    program.write_text(text)
    assert "metric `auc` cannot be computed" in fail(capsys, program)


def test_locked_runs_stop_when_the_data_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = regression(folder)
    assert main(["lock", str(program)]) == 0
    capsys.readouterr()
    train(capsys, program, "--locked")
    (folder / "points.csv").write_text(
        (folder / "points.csv").read_text().replace("\n1", "\n2", 1) + "1,1,1,1\n"
    )
    assert "error[KYN302]" in fail(capsys, program, "--locked")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TW_THREADS", "many", "error: environment variable TW_THREADS='many': 'many' is not a whole number"),
        ("TW_TARGET", "abacus", "error: environment variable TW_TARGET='abacus'"),
    ],
)
def test_a_wrong_setting_is_one_line(folder: Path, variable: str, value: str, message: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), variable: value}
    command = [sys.executable, "-m", "tilewright", "train", str(regression(folder))]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and run.stderr.startswith(message) and "Traceback" not in run.stderr


def test_a_cache_that_cannot_be_written_is_said_and_done_without(folder: Path) -> None:
    (folder / "file").write_text("")
    cache = str(folder / "file" / "cache")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TW_CACHE_DIR": cache}
    command = [sys.executable, "-m", "tilewright", "train", str(regression(folder, epochs=1))]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and run.stderr.startswith("warning: the kernel cache")
    assert len(run.stderr.strip().splitlines()) == 1 and (folder / "models" / "net.safetensors").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--epochs", "0", "argument --epochs: 0 is not a positive number"),
        ("--epochs", "1.5", "argument --epochs: '1.5' is not a whole number"),
        ("--seed", "-1", "argument --seed: -1 is not from 0 to 2**63 - 1"),
        ("--device", "abacus", "argument --device: 'abacus' is not supported; this version has auto or cpu"),
        ("--device", "cuda", "argument --device: 'cuda' is not supported; this version has auto or cpu"),
        ("--out", "", "argument --out: the name of the directory is empty"),
    ],
)
def test_wrong_options_are_usage_errors(
    folder: Path, option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", str(regression(folder)), option, value])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_only_devices_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "auto or cpu" in said and "cuda" not in said


def test_an_output_that_cannot_hold_the_names_shows_their_numbers(folder: Path) -> None:
    program = regression(folder, epochs=1).rename(folder / "größe.kyn")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "tilewright", "train", str(program)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and "gr\\xf6\\xdfe.kyn: Net trained" in run.stdout and not run.stderr


# ---- show and doctor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ("graph", "reduce_sum"),
        ("groups", "group 0"),
        ("kernels", "for "),
        ("llvm", "define"),
        ("asm", "ret"),
        ("plan", "arena"),
    ],
)
def test_show_prints_every_stage(
    folder: Path, stage: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = regression(folder)
    (folder / "points.csv").unlink()  # no data is needed
    assert main(["show", str(program), "--stage", stage]) == 0
    assert part in capsys.readouterr().out


@pytest.mark.parametrize("name", ["digits/digits.kyn", "digits/digits_cnn.kyn", "diabetes/diabetes.kyn"])
def test_shown_graphs_and_kernels_parse_back(
    name: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = str(repository / "examples" / name)
    executable = compile_step(check(program).runs[0])
    assert main(["show", program, "--stage", "graph"]) == 0
    graph = Graph.parse(capsys.readouterr().out)
    assert graph.content_hash == Graph(executable.inputs, tuple(executable.final)).content_hash
    assert main(["show", program, "--stage", "kernels"]) == 0
    texts = [f"kernel {text}" for text in ("\n" + capsys.readouterr().out).split("\nkernel ")[1:]]
    shown = [parse_kernel(text) for text in texts]
    assert len(shown) == len(executable.names) > 5
    for kernel, name in executable.names.items():
        assert replace(kernel, name=name) in shown


def test_doctor_examines_the_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "a program was compiled and run" in text and os.environ["TW_CACHE_DIR"] in text
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["check"]["ok"] and report["target"]["vector_bytes"] in (16, 32, 64)
    assert report["machine"]["threads"] >= 1 and report["cache"]["writable"]
    assert (report["software"]["calls"] == "native") == builtin.available()
