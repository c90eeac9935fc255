"""Time this library against others and against the limits of the machine.

  rnngen bench --suite=training --out=bench
  rnngen bench --suite=training,sampling --rounds=3 --shapes="64,16,1,128;28,64,28,256"
  rnngen bench --suite=training --target=tpu:v5e

Outputs and gradients are compared before anything is timed. The suites are training (LSTM and GRU
layers against torch, Flax, Keras and Equinox), sampling (pixel by pixel, against torch), memory and
linear (long sequences), choices (ways to compute an LSTM's and a GRU's gradient), images (Row LSTM
and Diagonal BiLSTM against textbook layers, sampling against one full pass per pixel), draw and gan
(DRAW, MLP GAN and DCGAN against torch versions), codes (VQ-VAE against vector-quantize-pytorch,
sampling through codes), codec (images of 256 levels), video (ConvLSTM), newton, and compile. All of
them take long at their default shapes.

--target=tpu:v5e (v4, v5p, v6e, tpu7x) times nothing: it compiles for one chip that need not be
here, with the compiler that comes with pip install rnngen_jax[pods], and sums the cycles that the
compiler estimates, each loop as often as it runs. The suites training, linear, choices and images
(gradients only) can be compiled, ours against Flax and Equinox.
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
    Flag("target", "string", "a chip to compile for, such as tpu:v5e, in the place of timing"),
    OUT._replace(help="folder for bench.json and pictures; by default nothing is written"),
)


def run(suite: str, rounds: int, shapes: str | None, out: str | None, target: str | None) -> None:
    """Runs benchmarks.

    Args:
      suite: comma-separated names of suites, or "all".
      rounds: timed calls per contender.
      shapes: "T,B,I,H;...", or `None` for each suite's own.
      out: folder to write to, or `None` to write nothing.
      target: a chip to compile for, or `None` to time here.

    Raises:
      UserError: an invalid flag, or a folder that cannot be written to.
      RunError: a contender's numbers differ from ours, or JAX cannot start a device; for a target,
        its compiler is not installed, or at work elsewhere.
    """
    from rnngen_jax.benchmarks import runner
    from rnngen_jax.runs.backend import start_backend

    if target is None:
        start_backend()
    else:
        import jax

        # The TPU's compiler needs no TPU, and must not look for one.
        jax.config.update("jax_platforms", "cpu")
    runner.run(suite, rounds, shapes, out, target)
