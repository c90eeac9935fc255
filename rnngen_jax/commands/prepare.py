"""Import images into a TFDS data set of ArrayRecord files, once, without TensorFlow.

  rnngen prepare --input=folder:photos --name=photos
  rnngen prepare --input=idx:downloads/mnist --name=my_mnist --data_dir=data

Then train on it with --config.data.name=tfds:NAME, or tfds:PATH for another --data_dir.
An existing data set of that name is never overwritten.
"""

from rnngen_jax.commands.flags import INPUT, Flag

FLAGS = (
    INPUT._replace(
        required=True,
        help="digits, idx:FOLDER, folder:FOLDER, frames:FOLDER, npz:FILE, tfds:NAME or codes:RUN",
    ),
    Flag("name", "string", "name of the new data set: lower-case, digits and _", required=True),
    Flag(
        "data_dir",
        "string",
        "folder of prepared data sets; by default TFDS_DATA_DIR or ~/tensorflow_datasets",
    ),
)


def run(input: str, name: str, data_dir: str | None) -> None:
    """Prepares a data set.

    Args:
      input: a source, as in `config.data.name`.
      name: name of the new data set.
      data_dir: folder of prepared data sets, or `None` for the default.

    Raises:
      UserError: the source cannot be read, or the name is taken or invalid.
    """
    from rnngen_jax.data.base import DataConfig
    from rnngen_jax.data.prepare import prepare
    from rnngen_jax.runs import coded

    print(prepare(coded.pinned(DataConfig(name=input)), name, data_dir))
