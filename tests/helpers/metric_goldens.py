"""Golden numbers of metrics: the results of independent implementations for fixed random inputs.

`python -m tests.helpers.metric_goldens` writes the numbers again; it needs the extra `peers` of the
package. The file contains only the results. Inputs and weights are drawn here.
"""

import json
import pathlib
import tempfile

import numpy as np

from dbae_jax.metrics.networks import alexnet_lpips, inception, vgg16
from tests.helpers.golden import draw
from tests.helpers.paths import RECORDINGS

FILE = RECORDINGS / "metrics" / "peers.json"
KEPT = 16  # evenly spaced values that are kept of 2048 features or 1008 logits


def features() -> tuple[np.ndarray, np.ndarray]:
    """Returns generated and real features: overlapping, correlated, and different in number."""
    mix = draw("mix", (12, 12)) / 3 + np.eye(12)
    return draw("generated", (500, 12)) @ mix + 0.3, draw("real", (600, 12)) @ mix.T


def logits() -> np.ndarray:
    """Returns class logits, [503, 10]."""
    return 2 * draw("logits", (503, 10))


def images(size: int, count: int) -> np.ndarray:
    """Returns coarse blocks with noise: uint8 [count, size, size, 3]."""
    blocks = draw("blocks", (count, 8, 8, 3)).repeat(size // 8, axis=1).repeat(size // 8, axis=2)
    noisy = 128 + 45 * blocks + 15 * draw("pixels", blocks.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def pairs(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns three pairs of images in [-1, 1], from nearly equal to unrelated."""
    x = images(size, 4).astype(np.float32) / 127.5 - 1
    strength = np.float32([0.02, 0.2, 0.5])[:, None, None, None]
    other = x[:3] + strength * draw("distortion", x[:3].shape)
    other[2] = x[3]
    return x[:3], np.clip(other, -1, 1)


def _weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    drawn = draw(key, shape)
    if key.startswith("lin"):
        return np.abs(drawn)
    if len(shape) > 1:
        return drawn * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if key.endswith("running_var"):
        return 0.5 + np.abs(drawn)
    if key.endswith("bn.weight"):
        return 1 + np.float32(0.1) * drawn
    return np.float32(0.1) * drawn


def inception_state() -> dict[str, np.ndarray]:
    return {k: _weight(k, shape) for k, shape in inception.state_shapes().items()}


def lpips_state() -> dict[str, np.ndarray]:
    shapes = alexnet_lpips.trunk_shapes() | alexnet_lpips.linear_shapes()
    return {k: _weight(k, shape) for k, shape in shapes.items()}


def vgg16_state() -> dict[str, np.ndarray]:
    return {k: _weight(k, shape) for k, shape in vgg16.state_shapes().items()}


def some(values: np.ndarray) -> np.ndarray:
    """Returns some values of the last axis, with its mean and its standard deviation."""
    step = values.shape[-1] // KEPT
    parts = [values[..., ::step][..., :KEPT]]
    parts += [f(values, axis=-1, keepdims=True) for f in (np.mean, np.std)]
    return np.concatenate(parts, axis=-1)


def read() -> dict[str, np.ndarray]:
    return {k: np.array(v) for k, v in json.loads(FILE.read_text()).items()}


def of_distributions(torch) -> dict:
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    generated, real = (torch.tensor(np.float64(f)) for f in features())
    statistics = [metric_fid.fid_features_to_statistics(f) for f in (generated, real)]
    fid = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    kid = metric_kid.kid_features_to_metric(
        generated, real, kid_subsets=7, kid_subset_size=200, verbose=False
    )
    prc = metric_prc.prc_features_to_metric(generated, real, verbose=False)
    isc = metric_isc.isc_features_to_metric(torch.tensor(np.float64(logits())))
    return {
        "frechet": list(fid.values()),
        "kernel": list(kid.values()),
        "precision_recall": list(prc.values())[:2],
        "classifier": list(isc.values()),
    }


def of_inception(torch) -> dict:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state.pth"
        torch.save({k: torch.tensor(v) for k, v in inception_state().items()}, path)
        wanted = ["2048", "logits_unbiased"]
        net = FeatureExtractorInceptionV3("peer", wanted, feature_extractor_weights_path=str(path))
    with torch.no_grad():
        pool, unbiased = net(torch.tensor(images(64, 2)).permute(0, 3, 1, 2))
    return {"pool": some(pool.numpy()).tolist(), "logits": some(unbiased.numpy()).tolist()}


def of_lpips(torch) -> dict:
    import lpips

    net = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False).eval()
    ours, state, names = lpips_state(), net.state_dict(), iter(alexnet_lpips.trunk_shapes())
    for key in state:
        if key.startswith("lin") and not key.startswith("lins"):
            state[key] = torch.tensor(ours[key])
        elif key.startswith("lins."):
            state[key] = torch.tensor(ours[f"lin{key[5:]}"])
        elif key.startswith("net."):
            state[key] = torch.tensor(ours[next(names)])
    net.load_state_dict(state)
    found = {}
    for size in (64, 128):
        tensors = [torch.tensor(p).permute(0, 3, 1, 2) for p in pairs(size)]
        with torch.no_grad():
            found[f"lpips_{size}"] = net(*tensors).flatten().tolist()
    return found


def of_vgg16(torch) -> dict:
    """Returns the features of torchvision's VGG16, built here from its layers in torch."""
    nn, layers, width = torch.nn, [], 3
    for block in vgg16.BLOCKS:
        for channels in block:
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
            width = channels
        layers.append(nn.MaxPool2d(2, 2))
    features, pool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d((7, 7))
    classifier = nn.Sequential(
        nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()
    )
    net = nn.ModuleDict({"features": features, "classifier": classifier}).eval()
    net.load_state_dict({k: torch.tensor(v) for k, v in vgg16_state().items()})
    x = torch.tensor(images(64, 2)).permute(0, 3, 1, 2).float()
    x = nn.functional.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        found = classifier(pool(features(x)).flatten(1))
    return {"vgg16": some(found.numpy()).tolist()}


def main() -> None:
    from tests.helpers import peers

    torch = peers.torch_with_vision()
    found = of_distributions(torch) | of_inception(torch) | of_lpips(torch) | of_vgg16(torch)
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
