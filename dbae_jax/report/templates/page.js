"use strict";

// Each slider shows one position of the images above it; a button moves the slider.
for (const container of document.querySelectorAll(".slider")) {
  const slider = container.querySelector("input[type=range]");
  const output = container.querySelector("output");
  const button = container.querySelector("button");
  const strips = container.querySelectorAll("img.strip");
  const positions = JSON.parse(slider.dataset.positions);
  let timer = null;
  for (const strip of strips) strip.src = document.getElementById(strip.dataset.row).src;
  container.hidden = false;

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
  show(); // a reload keeps the slider's position
}

// The selector shows one of several grids.
for (const chooser of document.querySelectorAll(".chooser")) {
  const select = chooser.querySelector("select");
  const choose = () => {
    for (const option of select.options) {
      document.getElementById(option.value).hidden = !option.selected;
    }
    hint();
  };
  select.addEventListener("change", choose);
  chooser.hidden = false;
  addEventListener("DOMContentLoaded", choose);
  addEventListener("pageshow", choose); // a reload keeps the choice
}

// A chart tells the values at the pointer.
for (const chart of document.querySelectorAll("svg[data-hover]")) {
  const points = JSON.parse(chart.dataset.hover);
  const rule = chart.querySelector(".rule");
  const readout = chart.nextElementSibling;
  readout.hidden = false;
  readout.textContent = "\u00a0";
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    const [place, text] = points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
    rule.setAttribute("x1", place);
    rule.setAttribute("x2", place);
    rule.setAttribute("visibility", "visible");
    readout.textContent = text;
  });
  chart.addEventListener("pointerleave", () => {
    rule.setAttribute("visibility", "hidden");
    readout.textContent = "\u00a0";
  });
}

// Commands can be copied; where the browser refuses, the command is selected.
for (const button of document.querySelectorAll("button.copy")) {
  const code = button.previousElementSibling;
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// What is wider than the screen says that it scrolls.
function hint() {
  for (const part of document.querySelectorAll(".scroll")) {
    part.classList.toggle("wide", part.scrollWidth > part.clientWidth + 1);
    part.classList.toggle("end", part.scrollLeft + part.clientWidth >= part.scrollWidth - 1);
  }
}
addEventListener("resize", hint);
addEventListener("load", hint);
document.addEventListener("scroll", hint, true);
document.addEventListener("toggle", hint, true);
