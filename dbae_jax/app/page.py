"""The page of the app, in gradio: inputs, what they do, and where the results appear."""

import functools
import html
import pathlib
import time
from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np

from dbae_jax import editing
from dbae_jax.api.dbae import DBAE
from dbae_jax.app import actions, figures, pictures, results
from dbae_jax.app.actions import Abilities, Encoded
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.data.sources import Source
from dbae_jax.errors import DBAEError
from dbae_jax.runtime import failures

STYLE = pathlib.Path(__file__).with_name("style.css")
SYSTEM_FONTS, SYSTEM_MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
SAMPLES = 16
CLEANING = (3_600, 86_400)  # every hour, uploads that are older than a day are deleted
KEPT = 32  # encoded pictures that are kept in memory
MOST_SHIFT = 3.0  # standard deviations
# One computation at a time: a model uses all cores or the whole accelerator.
RUN: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model"}
LATEST: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "minimal"} | RUN

ACCURACY = (
    "More evaluations take more time. The error is close to its lowest with {}. "
    "The first result with each number takes longer, because a program is compiled for it."
)
DISTILLED = "This model is distilled: its images are sharp with 2 evaluations."
NOTHING_YET = "There is no picture yet. Drop one into the field."
NOTHING_TO_MIX = "A mix needs two pictures. Drop them into the fields."


def theme() -> gr.themes.Base:
    """Returns gradio's theme with the fonts of the visitor's system: no font is loaded."""
    base = gr.themes.Default(primary_hue="indigo", font=SYSTEM_FONTS, font_mono=SYSTEM_MONO)
    return base.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def make_page(model: DBAE, source: Source | None) -> gr.Blocks:
    """Returns the page of a model.

    Args:
      model: a trained model.
      source: test images that a visitor can choose from, or None.
    """
    able = actions.abilities(model, source)
    with gr.Blocks(title="DBAE", analytics_enabled=False, delete_cache=CLEANING) as page:
        gr.HTML(_about(model), elem_classes="about")
        nfe = gr.Radio(
            actions.evaluations(model),
            value=model.nfe(),
            label="Network evaluations per image",
            info=DISTILLED if is_distilled(model.config) else ACCURACY.format(model.nfe()),
        )
        with gr.Tab("Reconstruct"):
            _edit_tab(page, model, source, able, nfe)
        with gr.Tab("Mix"):
            _mix_tab(model, source, nfe)
        with gr.Tab("Sample"):
            _sample_tab(model, able, nfe)
    return page


def _about(model: DBAE) -> str:
    return (
        "<h1>Diffusion bridge autoencoder</h1>"
        "<p>The encoder maps an image to a latent code z, and the decoder maps z to an endpoint "
        "x<sub>T</sub>. A diffusion bridge runs from x<sub>T</sub> to the reconstruction.</p>"
        f'<p class="subdued">{html.escape(repr(model))}</p>'
    )


def _edit_tab(
    page: gr.Blocks, model: DBAE, source: Source | None, able: Abilities, nfe: gr.Radio
) -> None:
    @functools.lru_cache(maxsize=KEPT)
    def encode(path: str, nfe: int) -> Encoded:
        return actions.encode(model, pictures.read(path, model.config.data), nfe)

    @_explained
    def show(path: str | None, nfe: int, dimension: float, shift: float, *scales: float) -> str:
        if path is None:
            return figures.sentence(NOTHING_YET)
        begin = time.perf_counter()
        encoded = encode(path, nfe)
        named = dict(zip(able.directions, scales, strict=True))
        z = actions.move(able, encoded.z, named, int(dimension), shift)
        return results.of_edit(encoded, actions.edit(model, encoded, z, nfe), _how(nfe, begin))

    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            picture = _picture("Picture", source, page)
        with gr.Column(scale=3, min_width=320):
            shown = gr.HTML(figures.sentence(NOTHING_YET), elem_id="edited")
    scales, dimension, shift = _sliders(model, able)
    reset = gr.Button("Set all sliders to 0", size="sm")
    inputs = [picture, nfe, dimension, shift, *scales]
    moves = [slider.input for slider in (dimension, shift, *scales)]
    gr.on([picture.change, nfe.change, *moves], show, inputs, shown, **LATEST)
    zeros = [0.0] * (1 + len(scales))
    reset.click(lambda: zeros if scales else 0.0, None, [shift, *scales], **RUN).then(
        show, inputs, shown, **LATEST
    )


def _sliders(model: DBAE, able: Abilities) -> tuple[list[gr.Slider], gr.Slider, gr.Slider]:
    """Returns the sliders of attributes, of the chosen dimension and of its shift."""
    with gr.Accordion("Attributes", open=True):
        with gr.Row(elem_classes="sliders"):
            scales = [
                gr.Slider(-1, 1, value=0, step=0.05, label=f"Towards {name}")
                for name in able.directions
            ]
        if able.no_directions:
            gr.HTML(figures.sentence(able.no_directions))
    with gr.Accordion("Dimensions of z", open=True), gr.Row(elem_classes="sliders"):
        can = able.spread is not None
        last = model.latent_dim - 1
        dimension = gr.Slider(0, last, value=0, step=1, label="Dimension of z", interactive=can)
        shift = gr.Slider(
            *(-MOST_SHIFT, MOST_SHIFT),
            value=0,
            step=0.1,
            label="Shift (standard deviations)",
            info=able.no_spread or None,
            interactive=can,
        )
    return scales, dimension, shift


def _mix_tab(model: DBAE, source: Source | None, nfe: gr.Radio) -> None:
    @_explained
    def show(first: str | None, second: str | None, method: str, nfe: int) -> str:
        if first is None or second is None:
            return figures.sentence(NOTHING_TO_MIX)
        begin, data = time.perf_counter(), model.config.data
        pair = pictures.read(first, data), pictures.read(second, data)
        mixed = actions.mix(model, *pair, method, nfe)
        return results.of_mix(mixed, method, _how(nfe, begin))

    with gr.Row():
        with gr.Column(min_width=240):
            first = _picture("First picture", source)
        with gr.Column(min_width=240):
            second = _picture("Second picture", source)
    method = gr.Radio(list(editing.METHODS), value="linear", label="Path between the latent codes")
    mix = gr.Button("Mix", variant="primary")
    shown = gr.HTML(figures.sentence(NOTHING_TO_MIX), elem_id="mixed")
    triggers = [first.change, second.change, method.input, mix.click]
    gr.on(triggers, show, [first, second, method, nfe], shown, **LATEST)


def _sample_tab(model: DBAE, able: Abilities, nfe: gr.Radio) -> None:
    @_explained
    def show(seed: float, nfe: int) -> str:
        begin = time.perf_counter()
        drawn = actions.draw(model, SAMPLES, int(seed or 0), nfe)
        return results.of_samples(drawn, int(seed or 0), _how(nfe, begin))

    if able.no_prior:
        gr.HTML(figures.sentence(able.no_prior))
        return
    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
    sample = gr.Button("Sample", variant="primary")
    shown = gr.HTML(elem_id="sampled")
    gr.on([sample.click, seed.submit], show, [seed, nfe], shown, **LATEST)


def _picture(label: str, source: Source | None, page: gr.Blocks | None = None) -> gr.Image:
    """Returns an input for a picture, with a button that takes one of the data set.

    Args:
      label: of the input.
      source: test images, or None for an input without the button.
      page: the page, if it begins with a picture of the data set.
    """
    picture = gr.Image(
        label=label,
        type="filepath",
        format="png",
        sources=["upload", "clipboard"],
        buttons=[],
        height=240,
        elem_classes="input",
    )
    # gradio would open the file, and fail without a sentence if it is not an image.
    picture.preprocess = _path  # type: ignore[method-assign]
    if source is None:
        return picture
    generator = np.random.default_rng()

    def take() -> Any:
        return pictures.as_image(source[int(generator.integers(len(source)))]["image"])

    gr.Button("Take a picture of the data set", size="sm").click(take, None, picture, **RUN)
    if page is not None:
        page.load(take, None, picture, **RUN)
    return picture


def _path(payload: Any) -> str | None:
    """Returns the path of an uploaded file; gradio has checked that it is in its folder."""
    return None if payload is None else payload.path


def _explained(function: Callable[..., str]) -> Callable[..., str]:
    """Returns a function that shows what is wrong as a sentence on the page."""

    @functools.wraps(function)
    def explained(*inputs: Any) -> str:
        try:
            return function(*inputs)
        except DBAEError as error:
            return figures.problem(str(error))
        except Exception as error:
            found = failures.explanation(error)
            if found is None:
                raise
            return figures.problem(str(found))

    return explained


def _how(nfe: int, begin: float) -> str:
    """Returns the number of evaluations and the time since `begin` in words."""
    return f"{nfe} network evaluations per image, {time.perf_counter() - begin:.2f} s."
