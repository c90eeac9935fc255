"""Errors that Orbax and TensorStore print and also raise are dropped, and nothing else."""

import asyncio
import logging
import sys
import types

import pytest
from absl import logging as absl_logging

from rnngen_jax.training.quiet import silence_repeated_errors


@pytest.fixture
def passed_on(monkeypatch):
    """The calls that reach the previous hook."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    silence_repeated_errors.__wrapped__()
    return seen


def unraisable(value, of=None):
    return types.SimpleNamespace(exc_value=value, object=of)


def test_only_late_callbacks_of_a_closed_loop_are_dropped(passed_on):
    others = [
        unraisable(RuntimeError("Event loop is closed"), of="a method that has failed"),
        unraisable(RuntimeError("something else")),
        unraisable(ValueError("Event loop is closed")),
    ]
    for one in [unraisable(RuntimeError("Event loop is closed")), *others]:
        sys.unraisablehook(one)
    assert passed_on == others


def test_only_tasks_of_orbax_are_dropped(passed_on, caplog):
    async def own():
        raise ValueError("on no account to be lost")

    async def forget():
        task = asyncio.create_task(own())
        await asyncio.sleep(0)
        del task

    asyncio.run(forget())
    assert "on no account to be lost" in caplog.text
    caplog.clear()
    # In asyncio's words.
    logging.getLogger("asyncio").error(
        "Task exception was never retrieved\nfuture: <Task finished name='Task-30' "
        "coro=<NumpyHandler._open_and_write() done, defined at "
        "/lib/python3/site-packages/orbax/checkpoint/_src/serialization/type_handlers.py:114>>"
    )
    assert caplog.text == ""


def test_only_errors_of_orbax_are_dropped(passed_on, caplog):
    logger = absl_logging.get_absl_logger()

    def log(level, path):
        logger.handle(logging.LogRecord("absl", level, path, 1, f"from {path}", None, None))

    log(logging.ERROR, "/lib/orbax/checkpoint/_src/futures/future.py")
    assert caplog.text == ""
    log(logging.WARNING, "/lib/orbax/checkpoint/checkpoint.py")
    log(logging.ERROR, "/lib/grain/data_loader.py")
    assert [record.getMessage() for record in caplog.records] == [
        "from /lib/orbax/checkpoint/checkpoint.py",
        "from /lib/grain/data_loader.py",
    ]
