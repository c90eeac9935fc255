"""Printing of the results of `rnngen evaluate`."""

from collections.abc import Mapping, Sequence
from typing import Any

# Of images, and of grids of codes.
LIKELIHOODS = ("nats_per_image", "bits_per_dim", "code_nats", "bits_per_code")
FEW = 20  # up to this many classes, the share of each is printed


def print_metrics(metrics: Mapping[str, float], seeds: int) -> None:
    """Prints the likelihood; ± is the standard error over images, or over several seeds."""
    error = "_error" if seeds == 1 else "/standard_error"
    for name in LIKELIHOODS:
        if name not in metrics:
            continue
        title = f"{name.replace('_', ' ')}:"
        print(f"{title:<15} {metrics[name]:.4f} ± {metrics[name + error]:.4f}")
        if seeds > 1:
            each = (f"{x:.4f}" for key, x in metrics.items() if key.startswith(f"{name}/seed_"))
            print(f"{'  of each:':<15} {', '.join(each)}")


def print_rows(metrics: Mapping[str, float], seeds: int) -> None:
    """Prints the bound under each prior over codes, one row each; ± as for the likelihood."""
    ending = "_bits_per_dim"
    error = "_error" if seeds == 1 else "/standard_error"
    for name in (name for name in metrics if name.endswith(ending)):
        title = f"  {name.removesuffix(ending)}:"
        print(f"{title:<15} {metrics[name]:.4f} ± {metrics[name + error]:.4f} bits per dim")


def print_codes(metrics: Mapping[str, float]) -> None:
    """Prints how a codebook is used by the whole split, one line for each of several levels."""
    for name in metrics:
        level, _, last = name.rpartition("/")
        if last == "perplexity":
            used, dead = (metrics[name.replace(last, own)] for own in ("codes_used", "dead_codes"))
            spent = f", {metrics[f'{level}/kl']:.4f} nats" if f"{level}/kl" in metrics else ""
            print(
                f"{f'{level} codes:'.lstrip():<15} perplexity {metrics[name]:.1f}, {used:.1%} in "
                f"use, {dead:g} dead{spent}"
            )


def print_forecasts(metrics: Mapping[str, float], seeds: int) -> None:
    """Prints how well frames are predicted; ± as for the likelihood."""
    error = "_error" if seeds == 1 else "/standard_error"
    units = {
        "mse": "summed over a frame",
        "mse_best_of_k": "of the best future",
        "mse_copy_last": "of the last given frame",
        "mse_teacher_forced": "given the true frames before",
        "psnr": "dB",
        "ssim": "",
        "soft_cross_entropy": "nats per frame, no likelihood",
    }
    for name, unit in units.items():
        if name in metrics:
            title = f"{name.replace('_', ' ')}:"
            print(f"{title:<20}{metrics[name]:.4f} ± {metrics[name + error]:.4f} {unit}".rstrip())


def print_usage(
    metrics: Mapping[str, float], latents: Sequence[Mapping[str, list[list[float]]]]
) -> None:
    """Prints the terms of a bound, averaged over seeds, and the KL of each step."""
    if "active_units" not in metrics:
        return
    if "elbo_nats_per_image" in metrics:
        print(f"{'ELBO:':<15} {metrics['elbo_nats_per_image']:.4f} nats")
    print(
        f"{'reconstruction:':<15} {metrics['reconstruction_nats']:.4f} nats, squared error", end=""
    )
    print(f" {metrics['mean_squared_error']:.5f}")
    variance = latents[0]["variance"]
    print(f"{'active units:':<15} {metrics['active_units']:g} of {sum(map(len, variance))}")
    if "kl" in metrics:
        print(f"{'KL:':<15} {metrics['kl']:.4f} nats", end="")
        each = [sum(step) for step in latents[0]["kl"]]
        print(f"; by step {' '.join(f'{nats:.2f}' for nats in each)}" if len(each) > 1 else "")


def print_samples(section: Mapping[str, Any], seeds: int) -> None:
    """Prints how samples compare with real images, beside the baseline; ± is over seeds."""
    from rnngen_jax.evaluation.validation import collapse

    metrics, baseline = section["metrics"], section["baseline"]
    if "inception" in section:
        print(f"judge:          {section['inception']}, images resized {section['resize']}")
    else:
        right = section["accuracy"]["test"]
        print(f"judge:          {section['classifier']}, {right:.4f} right on test")
    print(
        f"samples:        {section['num_samples']}, seed {section['seed']}, temperature "
        f"{section['temperature']:g}, against {section['num_real']} images"
    )
    print(f"baseline:       {section['num_baseline']} real images in the samples' place")
    print(f"{'':<18} {'samples':>10}{' ' * 9 * (seeds > 1)} {'baseline':>10}")
    for name, value in metrics.items():
        if "/" not in name:
            error = f" ± {metrics[f'{name}/standard_error']:.4f}" if seeds > 1 else ""
            print(f"{name:<18} {value:>10.4f}{error} {baseline[name]:>10.4f}")
    shares = [metrics[name] for name in baseline if name.startswith("class_share/")]
    if 0 < len(shares) <= FEW:
        print(f"{'class shares':<18} {' '.join(f'{share:.3f}' for share in shares)}")
    for missing in filter(None, section.get("missing", [])):
        print(collapse(missing))
