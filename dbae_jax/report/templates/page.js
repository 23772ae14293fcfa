"use strict";

// Each slider moves the strips of its panels; a button moves the slider.
for (const container of document.querySelectorAll(".slider")) {
  const slider = container.querySelector("input[type=range]");
  const output = container.querySelector("output");
  const button = container.querySelector("button");
  const strips = container.querySelectorAll("img.strip");
  const positions = JSON.parse(slider.dataset.positions);
  let timer = null;

  const show = () => {
    const position = Number(slider.value);
    for (const strip of strips) {
      strip.style.objectPosition = `${-position * strip.width}px 0`;
    }
    output.textContent = positions[position];
    slider.setAttribute("aria-valuetext", positions[position]);
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
  show(); // a reload keeps the slider's position
}
