"""Sharpness: power spectra of reconstructions, and a distilled model beside its teacher."""

import dataclasses

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.errors import DBAEError
from dbae_jax.evaluation.context import Context
from dbae_jax.evaluation.protocols import sharpness as protocol
from dbae_jax.report.charts import Series, chart
from dbae_jax.report.curves import CaptionedChart
from dbae_jax.report.pictures import Strip, strips
from dbae_jax.report.sections.reconstructions import decode
from dbae_jax.report.tables import Missing
from dbae_jax.sampling.plan import Plan

OWN = "reconstructions"


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


def sharpness(context: Context, count: int, first: int) -> Sharpness:
    """Decodes test images and compares their power spectra.

    Args:
      context: model and data.
      count: number of test images of the spectra.
      first: number of test images of a distilled model that are shown.
    """
    model, sample = context.model, context.config.sample
    images = context.images("test", min(count, context.limit("test")))
    own = decode(model, images, sample)
    if not is_distilled(model.config):
        return Sharpness(_chart(own.real, {OWN: own.x_0}), {}, None)
    decoded = {_label("sharp", model.nfe(plan=sample)): own.x_0}
    teacher = _teacher(model)
    if isinstance(teacher, Missing):
        return Sharpness(_chart(own.real, decoded), _shown(own.real, decoded, first), teacher)
    plans = {"accurate": Plan.named("accurate"), "stochastic": Plan.named("sharp")}
    of_teacher = {
        _label(name, teacher.nfe(plan=plan)): decode(teacher, images, plan).x_0
        for name, plan in plans.items()
    }
    accurate, stochastic = of_teacher.items()
    decoded = dict([accurate, *decoded.items(), stochastic])
    return Sharpness(_chart(own.real, decoded), _shown(own.real, decoded, first), None)


def _label(name: str, nfe: int) -> str:
    return f"{name}, {nfe} evaluation{'s' if nfe > 1 else ''}"


def _teacher(model: DBAE) -> DBAE | Missing:
    """Returns the model that this one was distilled from, or why there is none."""
    name = model.config.train.init_from
    try:
        teacher = DBAE.load(name, batch_size=model.batch_size)
    except DBAEError as error:
        reason = str(error)
    else:
        if teacher.encoder_fingerprint == model.encoder_fingerprint:
            return teacher
        reason = f"{name} is a model with another encoder now."
    return Missing(f"The reconstructions of the teacher are not here. {reason}")


def _shown(real: np.ndarray, decoded: dict[str, np.ndarray], first: int) -> dict[str, list[Strip]]:
    rows = {"test image": real} | decoded
    return {name: strips(images[:first]) for name, images in rows.items()}


def _chart(real: np.ndarray, decoded: dict[str, np.ndarray]) -> CaptionedChart | None:
    """Returns the chart of power by frequency, with the scores in its caption.

    Args:
      real: test images [N, S, S, C] in [-1, 1].
      decoded: name -> their reconstructions.
    """
    powers = {name: protocol.mean_power([some]) for name, some in decoded.items()}
    of_images = protocol.mean_power([real])
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
