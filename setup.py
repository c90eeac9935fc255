"""The packages, of which setup.cfg cannot name one: configs/ is installed as rnngen_jax.configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["rnngen_jax*"]), "rnngen_jax.configs"],
    package_dir={"rnngen_jax.configs": "configs"},
)
