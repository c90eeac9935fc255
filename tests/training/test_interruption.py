"""A run that is asked to stop saves itself, and goes on as if it had not been, to the bit."""

import contextlib
import shutil
import signal

import pytest
import training_toys as toys
from training_toys import lines, numbers, saved

from rnngen_jax.training import preemption
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.preemption import Interruption, Stopped, agreed, stoppable

ON = {"validate_every": 5, "sample_every": 10, "checkpoint_every": 20, "log_every": 10, "steps": 30}


class Asking:
    """Asks to stop from the nth question on."""

    def __init__(self, at, name="SIGTERM"):
        self.at, self.name, self.questions = at, name, 0

    def __call__(self):
        self.questions += 1
        return self.name if self.questions >= self.at else None


def drawn(folder, track=iter):
    """Writes what a grid of samples is of, batch by batch."""

    def draw(params, extra, step):
        for _ in track(range(2)):
            folder.mkdir(exist_ok=True)
        total = sum(float(abs(x).sum()) for x in params["model"]["decoder"].values())
        (folder / f"{step}.txt").write_text(repr(total))

    return draw


def validation(track=iter):
    """A validation of three batches."""

    def validate(params, extra):
        for _ in track(range(3)):
            pass
        return toys.validator()(params, extra)

    return validate


def go(workdir, asked=lambda: None, **changes):
    interruption = Interruption(asked)
    track = stoppable(interruption)
    return toys.run(
        workdir,
        validate=validation(track),
        draw=drawn(workdir / "grids", track),
        interruption=interruption,
        **{**ON, **changes},
    )


def outcome_of(workdir):
    """All that a run leaves, but for what depends on the clock."""
    grids = {path.name: path.read_text() for path in (workdir / "grids").iterdir()}
    return lines(workdir), lines(workdir, "validation"), grids, numbers(workdir), saved(workdir)[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert go(workdir).step == 30
    return outcome_of(workdir)


@pytest.mark.parametrize(
    "at",
    [
        *(1, 3, 6, 14, 26, 30),
        *(pytest.param(at, marks=pytest.mark.slow) for at in (2, 5, 9, 10, 21, 25, 28)),
    ],
)
def test_wherever_it_is_asked_it_goes_on_bit_by_bit(tmp_path, whole, at):
    """Between calls, within a validation, within a grid, at the last step."""
    asked = Asking(at)
    outcome = go(tmp_path, asked)
    assert outcome.state == "preempted"
    assert outcome.step == saved(tmp_path)[-1]
    assert asked.questions <= at + 1  # no batch and no call is begun once it has been asked
    again = go(tmp_path)
    assert (again.step, again.state) == (30, "done")
    assert outcome_of(tmp_path) == whole


def test_asked_again_and_again_within_the_same_step(tmp_path, whole):
    """What a step owes is still owed when the run that made up for it was stopped, too."""
    for at in (5, 3, 2, 1, 6, 3, 2):
        assert not go(tmp_path, Asking(at)).ended
    assert go(tmp_path).step == 30
    assert outcome_of(tmp_path) == whole


def test_a_step_that_owes_is_saved_anew_once_its_validation_is_the_best(tmp_path):
    """A kill after that finds the best checkpoint, and no validation is done twice."""
    assert go(tmp_path, Asking(2)).step == 5  # the validation at step 5 is owed
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert not checkpoints.has_best()
    assert not go(tmp_path, Asking(6)).ended  # after the owed validation of three batches
    assert len(lines(tmp_path, "validation")) == 1
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.find("best") == 5
        assert all(health.ok for health in checkpoints.health())


def test_the_last_step_is_owed_too(tmp_path, whole):
    outcome = go(tmp_path, Asking(27))
    assert (outcome.step, outcome.ended) == (30, False)
    before = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}_copy"))
    assert go(tmp_path) == go(before)
    assert outcome_of(tmp_path) == whole
    assert go(tmp_path).step == 30  # and now there is nothing left to do


def test_it_says_what_asked_and_where_it_stands(tmp_path, capsys):
    go(tmp_path, Asking(2, "Ctrl-C"))
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Ctrl-C: saved at step 5 of 30; to go on, give the same command again."
    )


def test_there_is_something_to_save_from_the_first_call_to_the_end(tmp_path):
    """The compiler's work can be thrown away; steps cannot."""
    states = []

    @contextlib.contextmanager
    def deferred():
        states.append("in")
        yield
        states.append("out")

    def validate(params, extra):
        assert states == ["in"]
        return toys.validator()(params, extra)

    toys.run(
        tmp_path, validate=validate, validate_every=5, interruption=Interruption(deferred=deferred)
    )
    assert states == ["in", "out"]


def test_the_library_sets_no_handlers(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    seen = []

    def validate(params, extra):
        seen.append((signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)))
        return toys.validator()(params, extra)

    toys.run(tmp_path, validate=validate, validate_every=10)
    assert set(seen) == {before}


@pytest.fixture
def service(monkeypatch):
    """Two processes whose service answers from question 3 on; yields its questions and signals."""
    numbers, signals = [], []

    def reached(number):
        numbers.append(number)
        return number == 2

    monkeypatch.setattr(preemption.jax, "process_count", lambda: 2)
    monkeypatch.setattr(preemption.multihost_utils, "reached_preemption_sync_point", reached)
    monkeypatch.setattr(preemption.signal, "raise_signal", signals.append)
    return numbers, signals


def test_several_processes_ask_the_service_with_a_number_that_rises_by_one(service):
    numbers, signals = service
    interruption = agreed(Interruption())
    # Batches of a validation count as calls do, and the answer stays.
    assert interruption.asked() is None
    track = stoppable(interruption)(range(5))
    assert next(track) == 0
    with pytest.raises(Stopped):
        next(track)
    assert [interruption.asked() for _ in range(2)] == ["SIGTERM"] * 2
    assert (numbers, signals) == ([0, 1, 2], [])


def test_what_one_of_several_processes_has_noted_is_passed_on_to_the_service(service):
    interruption = agreed(Interruption(lambda: "Ctrl-C"))
    assert [interruption.asked() for _ in range(3)] == [None, None, "SIGTERM"]
    assert service == ([0, 1, 2], [signal.SIGTERM])


def test_a_range_over_batches_stops_between_two():
    done = []
    with pytest.raises(Stopped):
        done.extend(batch for batch in stoppable(Interruption(Asking(3)))(range(5)))
    track = stoppable(Interruption(Asking(3)))(range(5))
    assert [next(track), next(track)] == [0, 1]
