"""Per-photo errors beside the trivial floors on the same photos, and the table made from them."""

from collections import defaultdict

import numpy as np
import pandas as pd
import torch
from scipy import stats

from colorlib import color
from colorlib.loading import Batches, loader
from colorlib.losses import mse_per_photo, predict

# Columns of the per-photo errors, and how the table calls them. A floor needs no network to reach.
FLOORS = {
    "grey": "all grey",
    "train_mean": "the training photos' mean colour",
    "oracle": "each photo's own mean colour (oracle)",
}


@torch.no_grad()
def evaluate(model, photo_set, train_mean, batch_size=32, workers=0, precision=torch.float32, chosen=None, loss=None):
    """The error of a model and of the three floors, photo by photo.

    Args:
        model: takes L `(B, 1, H, W)`, returns pred_ab `(B, 2, H, W)`; its mode is put back afterwards.
        photo_set: a `loading.Photos` without flips.
        train_mean: `(2,)`, mean ab of the photos that the model was trained on.
        precision: number type of the network's arithmetic.
        chosen: indices of the photos to take; all of them by default.
        loss: a `losses.Loss`; adds a column `loss`.

    Returns:
        DataFrame with a row per photo: `file`; `mse` (the model's) and the floors' `grey`, `train_mean`
        and `oracle`, all on `ab_unit`; and the mean `chroma` of the prediction and `true_chroma`, in `ab` units.
    """
    chosen = range(len(photo_set)) if chosen is None else chosen
    device = next(model.parameters()).device
    train_mean = torch.as_tensor(train_mean, device=device).float().view(1, 2, 1, 1)
    columns = defaultdict(list)
    was_training = model.training
    model.eval()
    for rgb in loader(photo_set, Batches(chosen, batch_size), workers):
        L, ab = color.rgb_to_lab(rgb.to(device, non_blocking=True))
        pred_ab = predict(model, L, precision)
        if loss:
            columns["loss"].append(loss(model, L, ab, precision, pred_ab))
        columns["mse"].append(mse_per_photo(pred_ab, ab))
        columns["grey"].append(mse_per_photo(torch.zeros_like(ab), ab))
        columns["train_mean"].append(mse_per_photo(train_mean.expand_as(ab), ab))
        columns["oracle"].append(mse_per_photo(ab.mean(dim=(2, 3), keepdim=True).expand_as(ab), ab))
        columns["chroma"].append(torch.linalg.vector_norm(pred_ab, dim=1).mean(dim=(1, 2)))
        columns["true_chroma"].append(torch.linalg.vector_norm(ab, dim=1).mean(dim=(1, 2)))
    model.train(was_training)
    rows = {name: torch.cat(values).double().cpu().numpy() for name, values in columns.items()}
    return pd.DataFrame({"file": [str(photo_set.files[i]) for i in chosen], **rows}, index=chosen)


def interval(values, level=0.95, seed=0):
    """Bootstrap interval of the mean over photos (percentile, 2,000 resamples): `(low, high)`.

    With fewer than two photos there is none: `(nan, nan)`.
    """
    if len(values) < 2:
        return np.nan, np.nan
    how = {"n_resamples": 2000, "batch": 100, "method": "percentile", "rng": np.random.default_rng(seed)}
    return stats.bootstrap((np.asarray(values),), np.mean, confidence_level=level, **how).confidence_interval


def table(rows, model="model"):
    """From per-photo errors to the table with its floors.

    Args:
        rows: what `evaluate` returned.
        model: how to call the model's row.

    Returns:
        DataFrame, the three floors and then the model: `MSE` on `ab_unit` with its 95 % interval
        (`from`, `to`), `raw ab` (MSE x 255^2) and `of the mean-colour floor`, the ratio to that floor.
    """
    means = {name: rows[name].mean() for name in (*FLOORS, "mse")}
    lines = []
    for name, label in {**FLOORS, "mse": model}.items():
        low, high = interval(rows[name])
        ratio = means[name] / means["train_mean"]
        lines.append((label, means[name], low, high, means[name] * 255**2, ratio))
    columns = ["predictor", "MSE", "from", "to", "raw ab", "of the mean-colour floor"]
    return pd.DataFrame(lines, columns=columns).set_index("predictor")


def style(frame):
    """Round a table's columns for reading: MSE to 5 decimals, raw ab to 1, ratios to 2."""
    return frame.round({"MSE": 5, "from": 5, "to": 5, "raw ab": 1, "of the mean-colour floor": 2})
