"""Recurrent autoencoder: from rows to latents and back.

    rnngen train --config=configs/rnn_autoencoder.py --workdir=runs/rnn_ae
        one CPU core, 1 min; at most 2.099 bits per dimension, IW-1000 2.068

    rnngen train --config=configs/rnn_autoencoder.py:attention --workdir=runs/rnn_ae_attention
        one CPU core, 1 min; at most 2.228 bits per dimension, IW-100 2.141

    rnngen train --config=configs/rnn_autoencoder.py:deterministic --workdir=runs/rnn_ae_fixed
        one CPU core, 1 min; no bound; reconstructions cost 71.2 nats, squared error 0.011

    rnngen train --config=configs/rnn_autoencoder.py:collapsed --workdir=runs/collapsed
        one CPU core, 1 min; at most 1.966 bits per dimension, IW-100 1.962; 3 of 16 units active

    rnngen train --config=configs/rnn_autoencoder.py:cured --workdir=runs/cured
        one CPU core, 1 min; at most 2.010 bits per dimension, IW-100 1.943; 16 of 16 units active

    rnngen train --config=configs/rnn_autoencoder.py:binary_mnist --workdir=runs/rnn_ae_binary
        one CPU core, about 12 min; with --config.training.steps=2000 (8 min) at most 110.5 nats
        per image, static binarisation

    rnngen train --config=configs/rnn_autoencoder.py:fashion_mnist --workdir=runs/rnn_ae_fashion
        one CPU core, 8 min; at most 1941.5 nats per image, 256 levels

Figures are from `rnngen evaluate` on the test split: ELBOs, lower bounds. A decoder that sees
the previous row does well without latents and learns to ignore them: the posterior collapses onto
the prior (Bowman et al. 2016), as `active_units` in metrics.jsonl shows. Free bits keep the latents
in use, at a cost in likelihood.

Runs shorter than the preset used --config.optimizer.warmup_steps=50.

`--config=rnn_autoencoder` names this file in any folder.
"""

from rnngen_jax import recipes

DIGITS = ("digits", "attention", "deterministic", "collapsed", "cured")
PRESETS = (*DIGITS, "binary_mnist", "fashion_mnist")


def get_config(arg: str = "digits"):
    config = recipes.begin("rnn_autoencoder", arg, PRESETS)
    config.model.update(bidirectional=True, dropout=0.2, beta_warmup=300)
    recipes.adamw(config, learning_rate=5e-3, steps=1000)
    if arg == "attention":
        config.model.update(attention="dot", latents=4)
    if arg == "deterministic":
        config.model.update(latent="deterministic", beta_warmup=0)
    if arg in ("collapsed", "cured"):
        config.model.update(
            decoder="autoregressive", beta_warmup=0, free_bits=0.5 if arg == "cured" else 0.0
        )
    if arg in DIGITS:
        return config

    recipes.idx(config, arg, mixtures=1)
    config.model.update(features=256, input_features=128, latents=32, dropout=0.0)
    config.optimizer.update(learning_rate=2e-3, weight_decay=0.01)
    recipes.train_for(config, 3000)
    recipes.every(config, lines=500, pictures=1000)
    return config
