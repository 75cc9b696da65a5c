"""The parts of the training loop, and the loop over arrays as a library."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn, optim, random
from tilewright.core.files import FileWriteError
from tilewright.optim.lr_scheduler import StepLR
from tilewright.train import (
    Checkpoint,
    CheckpointError,
    EarlyStop,
    EpochResult,
    Observer,
    Progress,
    Trainer,
    TrainingError,
    batch_sizes,
    epoch_order,
)


def test_batches_cover_every_row_but_a_rest_that_is_too_small() -> None:
    assert batch_sizes(64, 32) == [32, 32]
    assert batch_sizes(5, 32) == [5]
    assert batch_sizes(65, 32) == [32, 32, 1]
    assert batch_sizes(65, 32, smallest=2) == [32, 32]
    assert batch_sizes(1, 32, smallest=2) == [1]


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    order = epoch_order(100, seed=3, epoch=2)
    assert sorted(order) == list(range(100))
    np.testing.assert_array_equal(order, epoch_order(100, seed=3, epoch=2))
    assert (order != epoch_order(100, seed=3, epoch=3)).any()
    assert (order != epoch_order(100, seed=4, epoch=2)).any()
    first = Counter(int(epoch_order(4, seed=0, epoch=e)[0]) for e in range(400))
    assert all(70 < first[i] < 130 for i in range(4))


def test_early_stop_counts_epochs_without_improvement() -> None:
    stop = EarlyStop(patience=2, mode="max", min_delta=0.1)
    assert [stop.update(v) for v in (0.5, 0.55, 0.7, 0.7, float("nan"))] == [False, False, False, False, True]
    again = EarlyStop(patience=2, mode="max", min_delta=0.1)
    again.load_state_dict(stop.state_dict())
    assert again.best == 0.7 and again.update(0.75)
    with pytest.raises(ValueError, match="'median'"):
        EarlyStop(mode="median")
    with pytest.raises(ValueError, match="patience"):
        EarlyStop(patience=0)


# ---- checkpoints -------------------------------------------------------------------------------------------


def state(**more: Any) -> dict[str, Any]:
    return {"identity": {"seed": 1}, "epoch": 3, **more}


def test_a_checkpoint_reads_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "deep" / "net")
    assert checkpoint.load({"seed": 1}) is None
    checkpoint.save({"a": np.arange(3)}, state(best=float("inf"), pair=(1, 2)))
    found = checkpoint.load({"seed": 1})
    assert found is not None
    assert found[0]["a"].tolist() == [0, 1, 2] and found[1]["best"] is None and found[1]["pair"] == [1, 2]
    with pytest.raises(CheckpointError, match=r"differs in `lr` and `seed`"):
        checkpoint.load({"seed": 2, "lr": 0.1})


def test_a_background_write_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path / "net", async_save=True)
    array = np.zeros(100)
    checkpoint.save({"a": array}, state())
    array += 1  # the copy that is being written does not change
    checkpoint.wait()
    found = checkpoint.load({"seed": 1})
    assert found is not None and found[0]["a"].sum() == 0

    def full(handle: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    checkpoint.save({"a": array}, state())
    with pytest.raises(FileWriteError, match="No space left"):
        checkpoint.wait()
    checkpoint.wait()  # told once
    assert [p.name for p in tmp_path.iterdir()] == ["net.checkpoint.safetensors"]


def test_a_file_that_was_cut_short_is_told_with_what_to_do(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "net")
    checkpoint.path.write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"too few for its header; remove .* to start afresh"):
        checkpoint.load({})


@pytest.mark.parametrize(
    "content", ["", "[", '{"identity": 3, "epoch": 1}', '{"identity": {}, "epoch": "x"}', "{}"]
)
def test_a_damaged_state_is_told(tmp_path: Path, content: str) -> None:
    from tilewright.interop.safetensors import save_file

    checkpoint = Checkpoint(tmp_path / "net")
    save_file({}, checkpoint.path, {"format": "tilewright.checkpoint", "state": content})
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load({})


# ---- the loop ----------------------------------------------------------------------------------------------


class Recorder(Observer):
    def __init__(self) -> None:
        self.steps: list[Progress] = []
        self.epochs: list[EpochResult] = []

    def on_step(self, progress: Progress) -> None:
        self.steps.append(progress)

    def on_epoch(self, result: EpochResult) -> None:
        self.epochs.append(result)


def line(rows: int = 41) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x = np.random.default_rng(0).standard_normal((rows, 2)).astype(np.float32)
    return x, (x @ np.array([[1.0], [-2.0]], np.float32)).astype(np.float32)


def trainer(*layers: nn.Module, **options: Any) -> Trainer:
    random.manual_seed(0)
    model = nn.Sequential(*(layers or (nn.Linear(2, 1),)))
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    return Trainer(model, F.mse_loss, optimizer, **{"epochs": 3, "batch": 10, **options})


def test_the_loop_tells_every_step_and_epoch() -> None:
    recorder = Recorder()
    x, y = line()
    history = trainer(observer=recorder).fit(x, y)
    assert [p.step for p in recorder.steps] == [1, 2, 3, 4, 5] * 3
    assert recorder.steps[-1].rows == 3 * 41 and recorder.steps[-1].steps == 5
    assert recorder.epochs == history.epochs and history.steps == 15
    assert history.epochs[-1].loss < history.epochs[0].loss


def test_a_batch_norm_is_never_given_one_row() -> None:
    recorder = Recorder()
    fitted = trainer(nn.BatchNorm1d(2), nn.Linear(2, 1), observer=recorder)
    fitted.fit(*line(41))
    assert recorder.steps[-1].steps == 4
    assert fitted.model[0].num_batches_tracked.item() == 12  # type: ignore[index]


def test_predictions_do_not_depend_on_the_batch_and_leave_the_mode() -> None:
    x, y = line(1500)
    fitted = trainer(nn.Dropout(0.5), nn.Linear(2, 1))
    fitted.fit(x[:40], y[:40])
    whole = fitted.predict(x)
    assert whole.shape == (1500, 1) and fitted.model.training
    np.testing.assert_allclose(fitted.predict(x[1020:1030]), whole[1020:1030], rtol=1e-5, atol=1e-6)
    assert fitted.evaluate(x, y)["loss"] == pytest.approx(float(((whole - y) ** 2).mean()), rel=1e-5)


def test_training_with_and_without_compilation_agrees() -> None:
    losses = [[e.loss for e in trainer(compile=flag).fit(*line()).epochs] for flag in (True, False)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_schedule_changes_the_rate_between_epochs() -> None:
    fitted = trainer()
    fitted.scheduler = StepLR(fitted.optimizer, 1, gamma=0.5)
    assert [e.lr for e in fitted.fit(*line()).epochs] == pytest.approx([0.1, 0.05, 0.025])


def test_what_cannot_be_trained_is_named() -> None:
    x, y = line()
    with pytest.raises(TrainingError, match="as many rows as targets"):
        trainer().fit(x, y[:3])
    with pytest.raises(TrainingError, match="lower `split`"):
        trainer(early_stop=EarlyStop()).fit(x, y)
    with pytest.raises(TrainingError, match="'accuracy', which is not one of: loss"):
        trainer(early_stop=EarlyStop(monitor="accuracy")).fit(x, y, x, y)
    with pytest.raises(TrainingError, match="at least one row"):
        trainer().fit(x[:0], y[:0])
    with pytest.raises(TrainingError, match=r"loss became .* the targets of its rows hold NaN or infinity"):
        trainer().fit(x, np.full_like(y, np.inf))
    with pytest.raises(TrainingError, match=r"loss became .* the inputs of its rows hold NaN or infinity"):
        trainer().fit(np.full_like(x, np.nan), y)
    with pytest.raises(TrainingError, match=r"loss became .* a lower learning rate"):
        trainer().fit(x * np.float32(1e30), y)
    with pytest.raises(ValueError, match="count from 1"):
        trainer(epochs=0)
    with pytest.raises(ValueError, match="'hour'"):
        trainer(schedule="hour")


def test_tensors_and_lists_are_rows_too() -> None:
    rows = [[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]]
    losses = []
    kinds: list[Any] = [lambda a: a, tw.tensor, lambda a: np.array(a, np.float32)]
    for kind in kinds:
        tw.manual_seed(0)
        model = nn.Linear(2, 1)
        trainer = Trainer(model, F.mse_loss, optim.SGD(model.parameters(), lr=0.1), epochs=2)
        x, y = kind(rows), kind([[1.0], [2.0], [3.0]])
        losses.append([e.loss for e in trainer.fit(x, y, x, y).epochs])
        assert trainer.predict(x).shape == (3, 1) and trainer.evaluate(x, y)["loss"] > 0
        assert trainer.predict(np.zeros((0, 2), np.float32)).shape == (0, 1)
    assert losses[0] == losses[1] == losses[2]
