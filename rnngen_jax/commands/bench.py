"""Time what is in here against other libraries and against what the machine allows.

  rnngen bench --suite=training --out=bench
  rnngen bench --suite=training,sampling --rounds=3 --shapes="64,16,1,128;28,64,28,256"

Outputs and gradients are compared before anything is timed. The suites are training (LSTM and GRU
layers against torch, Flax, Keras and Equinox), sampling (pixel by pixel, against torch), memory and
linear (long sequences), images (Row LSTM and Diagonal BiLSTM against textbook layers, drawing
against a pass for each pixel), draw (DRAW against the same in torch), newton, and compile. With
their own shapes all of them take long.
"""

from rnngen_jax.commands.base import OUT, Flag

FLAGS = (
    Flag("suite", "string", "suites' names, comma between, or all", "all"),
    Flag("rounds", "integer", "timed calls of each contender, one after another", 7),
    Flag(
        "shapes",
        "string",
        "T,B,I,H;T,B,I,H;... instead of each suite's own: steps, batch, inputs, features; for the "
        "suite images: pixels, batch, channels, features; for draw: steps, batch, side, features",
    ),
    OUT._replace(help="a folder for bench.json and pictures; by default nothing is written"),
)


def run(suite: str, rounds: int, shapes: str | None, out: str | None) -> int:
    """Runs benchmarks.

    Args:
      suite: suites' names, comma between, or "all".
      rounds: timed calls of each contender.
      shapes: "T,B,I,H;..." or `None`.
      out: a folder, or `None`.

    Returns:
      0.

    Raises:
      UserError: a flag does not fit, or the folder cannot be written to.
      RunError: a contender's numbers differ from ours, or there are no devices to compute on.
    """
    from rnngen_jax.benchmarks import runner
    from rnngen_jax.runs.backend import start_backend

    start_backend()
    runner.run(suite, rounds, shapes, out)
    return 0
