"""Any autoregressive model as a prior over the codes of a VQ-VAE, which makes it generate.

    rnngen train --config=configs/code_prior.py --workdir=runs/code_prior
        one CPU core, min not measured; not run: bits per dimension

    rnngen train --config=configs/code_prior.py:mnist --workdir=runs/code_prior_mnist
        one CPU core, min not measured; not run: bits per dimension, 256 levels

    rnngen train --config=configs/code_prior.py:fashion_mnist --workdir=runs/code_prior_fashion
        one CPU core, min not measured; not run: bits per dimension, 256 levels

The prior is a Row LSTM; --config.model.prior=diagonal_bilstm or pixel_cnn:gated=True is another. As
with configs/code_rnn.py, a tokenizer is trained first in WORKDIR/tokenizer, unless
--config.tokenizer=RUN gives a run of configs/vqvae.py on the same data.

`--config=code_prior` names this file in any folder.
"""

from rnngen_jax import recipes

PRESETS = ("digits", "mnist", "fashion_mnist")


def get_config(arg: str = "digits"):
    config = recipes.begin("code_prior", arg, PRESETS)
    recipes.codebook(config.vqvae, arg)
    recipes.coded_data(config, arg)
    recipes.adamw(config, learning_rate=2e-3, steps=1000 if arg == "digits" else 1500)
    config.optimizer.weight_decay = 0.01
    config.model.prior = "row_lstm:features=32,layers=2,first_kernel=3,dropout=0.3"
    return config
