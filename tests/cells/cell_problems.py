"""What the tests of cells share: sizes, cells by their flags, and parameters."""

import jax

T, B, D, F = 5, 3, 4, 6

SPECS = [
    "rnn",
    "rnn:activation=relu",
    "lstm",
    "lstm:forget_bias=-0.5",
    "gru",
    "gru:variant=reset_before",
    "gru:variant=nested",
    "layer_norm_lstm",
    "layer_norm_gru",
    "min_gru",
    "min_gru:positive=True",
    "min_lstm",
    "min_lstm:positive=True",
    "rg_lru",
    "rg_lru:c=2.0",
]


def randomised(params, key):
    """Every array random, so that no bias or scale hides behind a zero or a one."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        leaf + 0.5 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)
