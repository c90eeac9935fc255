"""Time this library against others and against the limits of the machine.

  rnngen bench --suite=training --out=bench
  rnngen bench --suite=training,sampling --rounds=3 --shapes="64,16,1,128;28,64,28,256"

Outputs and gradients are compared before anything is timed. The suites are training (LSTM and GRU
layers against torch, Flax, Keras and Equinox), sampling (pixel by pixel, against torch), memory and
linear (long sequences), images (Row LSTM and Diagonal BiLSTM against textbook layers, sampling
against one full pass per pixel), draw (DRAW against a torch version), newton, and compile. All of
them take long at their default shapes.
"""

from rnngen_jax.commands.flags import OUT, Flag

FLAGS = (
    Flag("suite", "string", "comma-separated names of suites, or all", "all"),
    Flag("rounds", "integer", "timed calls per contender, in turn", 7),
    Flag(
        "shapes",
        "string",
        "T,B,I,H;T,B,I,H;... instead of each suite's own: steps, batch, inputs, features; for the "
        "suite images: pixels, batch, channels, features; for draw: steps, batch, side, features",
    ),
    OUT._replace(help="folder for bench.json and pictures; by default nothing is written"),
)


def run(suite: str, rounds: int, shapes: str | None, out: str | None) -> None:
    """Runs benchmarks.

    Args:
      suite: comma-separated names of suites, or "all".
      rounds: timed calls per contender.
      shapes: "T,B,I,H;...", or `None` for each suite's own.
      out: folder to write to, or `None` to write nothing.

    Raises:
      UserError: an invalid flag, or a folder that cannot be written to.
      RunError: a contender's numbers differ from ours, or JAX cannot start a device.
    """
    from rnngen_jax.benchmarks import runner
    from rnngen_jax.runs.backend import start_backend

    start_backend()
    runner.run(suite, rounds, shapes, out)
