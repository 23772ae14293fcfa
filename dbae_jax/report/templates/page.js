"use strict";

// A film: a slider, the strips of frames that it moves, and a button that moves it by itself.
for (const film of document.querySelectorAll(".film")) {
  const slider = film.querySelector("input[type=range]");
  const says = film.querySelector("output");
  const button = film.querySelector("button");
  const strips = film.querySelectorAll("img.strip");
  const places = JSON.parse(slider.dataset.places);
  let timer = null;

  const show = () => {
    const frame = Number(slider.value);
    for (const strip of strips) {
      strip.style.objectPosition = `${-frame * strip.width}px 0`;
    }
    says.textContent = places[frame];
    slider.setAttribute("aria-valuetext", places[frame]);
  };

  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };

  const play = () => {
    const last = Number(slider.max);
    if (Number(slider.value) === last) slider.value = 0;
    show();
    button.textContent = "Stop";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === last) stop();
    }, Math.max(60, 2400 / last));
  };

  slider.addEventListener("input", () => { stop(); show(); });
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  button.hidden = false;
  show(); // browsers keep a slider's place when a page is loaded again
}
