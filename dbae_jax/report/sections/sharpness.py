"""Sharpness: power spectra of reconstructions, and a distilled model beside its teacher."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.data.images import to_float, to_uint8
from dbae_jax.errors import DBAEError
from dbae_jax.evaluation.context import Context
from dbae_jax.evaluation.protocols import sharpness as protocol
from dbae_jax.report.charts import Series, chart
from dbae_jax.report.curves import CaptionedChart
from dbae_jax.report.pictures import Strip, strips
from dbae_jax.report.sections.reconstructions import decode
from dbae_jax.report.tables import Missing
from dbae_jax.runtime import kept, sharding
from dbae_jax.sampling.plan import CONSISTENCY, Plan

OWN = "reconstructions"
SAMPLES = "samples, as the suite generation measured them"


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """Power spectra of test images and of their reconstructions.

    Attributes:
      chart: the spectra; None for images without power at high frequencies.
      decodings: of a distilled model, name -> test images, and their reconstructions by the model
        and by its teacher; empty for other models.
      missing: why the teacher's reconstructions are not shown, or None.
    """

    chart: CaptionedChart | None
    decodings: dict[str, list[Strip]]
    missing: Missing | None


def sharpness(
    context: Context, count: int, first: int, samples: Sequence[float] | None = None
) -> Sharpness:
    """Decodes test images and compares their power spectra.

    What a teacher decodes is kept in the cache of the workdir, as its stochastic sampler is slow.

    Args:
      context: model and data.
      count: number of test images of the spectra.
      first: number of test images of a distilled model that are shown.
      samples: log-ratio of the power of samples and images by frequency, as the suite generation
        measured it; None: it was not measured.
    """
    model, sample = context.model, context.config.sample
    images = context.images("test", min(count, context.limit("test")))
    own = decode(model, images, sample)
    if not is_distilled(model.config):
        return Sharpness(_chart(own.real, {OWN: own.x_0}, samples), {}, None)
    nfe = model.nfe(plan=sample)
    name = "sharp" if sample.sampler == CONSISTENCY and nfe > 1 else sample.sampler
    decoded = {_label(name, nfe): own.x_0}
    teacher = _teacher(model)
    if isinstance(teacher, Missing):
        chart = _chart(own.real, decoded, samples)
        return Sharpness(chart, _shown(own.real, decoded, first), teacher)
    accurate, stochastic = _decoded_by(teacher, context, images).items()
    decoded = dict([accurate, *decoded.items(), stochastic])
    return Sharpness(_chart(own.real, decoded, samples), _shown(own.real, decoded, first), None)


def _decoded_by(teacher: DBAE, context: Context, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the teacher's accurate and stochastic reconstructions, rounded to 8 bits."""
    plans = {"accurate": Plan.named("accurate"), "stochastic": Plan.named("sharp")}
    labels = {name: _label(name, teacher.nfe(plan=plan)) for name, plan in plans.items()}

    def make() -> dict[str, np.ndarray]:
        return {name: to_uint8(decode(teacher, images, plan).x_0) for name, plan in plans.items()}

    if context.cache is None:
        found = make()
    else:
        identity = context.identity_of("test") | {
            "teacher": teacher.fingerprint,
            "images": len(images),
            "plans": {name: dataclasses.asdict(plan) for name, plan in plans.items()},
        }
        path = context.cache / f"{context.config.data.name}_by_teacher.npz"
        found = kept.read_or_make(path, identity, make)
    return {labels[name]: np.asarray(to_float(found[name])) for name in plans}


def _label(name: str, nfe: int) -> str:
    return f"{name}, {nfe} evaluation{'s' if nfe > 1 else ''}"


def _teacher(model: DBAE) -> DBAE | Missing:
    """Returns the model that this one was distilled from, or why there is none."""
    name = model.config.train.init_from
    try:
        teacher = DBAE.load(name, batch_size=model.batch_size, mesh=sharding.make_mesh())
    except DBAEError as error:
        reason = str(error)
    else:
        if is_distilled(teacher.config):
            reason = f"{name} is a distilled model itself."
        elif teacher.encoder_fingerprint == model.encoder_fingerprint:
            return teacher
        else:
            reason = (
                f"The encoder of {name}, at step {teacher.step}, is not that of this model. Either "
                f"{name} was trained further, or one of the two was made of released weights, "
                "which are rounded. A model with the same encoder is needed there."
            )
    return Missing(f"The reconstructions of the teacher are not here. {reason}")


def _shown(real: np.ndarray, decoded: dict[str, np.ndarray], first: int) -> dict[str, list[Strip]]:
    rows = {"test image": real} | decoded
    return {name: strips(images[:first]) for name, images in rows.items()}


def _chart(
    real: np.ndarray, decoded: dict[str, np.ndarray], samples: Sequence[float] | None
) -> CaptionedChart | None:
    """Returns the chart of power by frequency, with the scores in its caption.

    Args:
      real: test images [N, S, S, C] in [-1, 1].
      decoded: name -> their reconstructions.
      samples: see `sharpness`.
    """
    powers = {name: protocol.mean_power([to_uint8(some)]) for name, some in decoded.items()}
    of_images = protocol.mean_power([real])
    if samples is not None:
        powers[SAMPLES] = of_images * np.exp(samples)
    made = chart(
        [
            Series(name, range(1, len(power)), power[1:].tolist())
            for name, power in ({"test images": of_images} | powers).items()
        ],
        title="Power spectra",
        x_label="frequency, cycles per image side",
        y_label="power, log scale",
        log_y=True,
    )
    if made is None:
        return None
    scores = {name: protocol.score_of([power], of_images) for name, power in powers.items()}
    listed = "; ".join(_words(name, score) for name, score in scores.items())
    return CaptionedChart(
        made,
        f"{len(real)} test images. Sharpness error over the upper half of the frequencies, and "
        f"mean log-ratio of power (negative: blurred; positive: noise or halos): {listed}.",
    )


def _words(name: str, score: dict) -> str:
    if score["value"] is None:
        return f"{name}: undefined, because {score['details']['reason']}"
    return f"{name}: {score['value']:.3f} and {score['details']['bias']:+.3f}"
