// Draws the charts of the page from the JSON in it, and answers its buttons. No library, no network.
"use strict";
(() => {
  const HEIGHT = 260;
  const MOST_MARKED_POINTS = 40; // of a line; more points show its shape by themselves
  const MOST_SPACED_POINTS = 300; // more are drawn with a thinner line
  const data = JSON.parse(document.getElementById("plot-data").textContent);
  const hasOneRun = data.runs.length === 1;
  const view = { x: "epoch", hiddenRuns: new Set(), hiddenPhases: new Set() };
  const charts = [];

  // One run: a colour a phase. Several: a colour a run, and the phase is the kind of line.
  const colorOf = (line) =>
    `var(--run-${(hasOneRun ? data.phases.indexOf(line.phase) : line.run) % data.colors})`;
  const dashOf = (phase) => (phase === "eval" ? "" : phase === "train" ? " dashed" : " dotted");
  const nameOf = (line) => (hasOneRun ? line.phase : `${data.runs[line.run].label} ${line.phase}`);

  // ---- one chart

  const isShown = (line) =>
    !view.hiddenRuns.has(line.run) && !view.hiddenPhases.has(line.phase);
  const xsOf = (line) => (view.x === "epoch" ? line.epochs : line.steps);
  const canDraw = (value, isLog) => value !== null && (!isLog || value > 0);

  function draw(chart) {
    const { box, isLog } = chart;
    const lines = chart.lines.filter(isShown);
    const values = lines.flatMap((line) => line.values.filter((value) => canDraw(value, isLog)));
    box.replaceChildren();
    chart.layout = null;
    tellClipped(chart, lines);
    if (!values.length) {
      const isEmpty = !lines.some((line) => line.values.some((value) => value !== null));
      const why = !lines.length ? "All its lines are hidden." : isEmpty
        ? "No value was a finite number." : "No value is above 0: a logarithmic axis has no place for it.";
      makeHtml("div", "empty", why, box);
      return;
    }
    const y = makeYScale(values, isLog);
    const labels = y.ticks.map(formatNumber);
    const left = Math.max(...labels.map((label) => label.length)) * 7 + 12;
    const area = { left, right: Math.max(box.clientWidth - 20, left + 60), top: 10, bottom: HEIGHT - 40 };
    const xs = lines.flatMap(xsOf);
    let [low, high] = [Math.min(...xs), Math.max(...xs)];
    if (low === high) [low, high] = [low - 1, high + 1];
    const layout = {
      lines, area,
      xs: [...new Set(xs)].sort((one, other) => one - other),
      x: (value) => area.left + ((value - low) / (high - low)) * (area.right - area.left),
      y: (value) => area.bottom - y.place(value) * (area.bottom - area.top),
    };
    chart.layout = layout;
    const svg = make("svg", { role: "img", tabindex: 0, "aria-label": describe(chart, lines) }, box);
    make("title", {}, svg).textContent = chart.title;
    drawAxes(svg, layout, y.ticks, labels, [low, high]);
    drawResumed(svg, layout);
    for (const line of lines) drawLine(svg, line, layout, isLog);
    drawBest(svg, chart, layout);
    chart.cursor = make("g", {}, svg);
    chart.tip = makeHtml("div", "tip", "", box);
    chart.tip.hidden = true;
    chart.tip.setAttribute("aria-live", "polite");
    listen(svg, chart);
  }

  function describe(chart, lines) {
    const ends = lines.map((line) => {
      const last = line.values.findLast((value) => value !== null);
      return `${nameOf(line)} ${last === undefined ? "without a finite value" : `ends at ${formatNumber(last)}`}`;
    });
    return `${chart.title} by ${view.x}: ${ends.join("; ")}. Arrow keys read values; the table below has them.`;
  }

  function drawAxes(svg, { area, x, y }, ticks, labels, [low, high]) {
    ticks.forEach((tick, index) => {
      const at = y(tick);
      make("line", { class: "gridline", x1: area.left, x2: area.right, y1: at, y2: at }, svg);
      const attributes = { x: area.left - 8, y: at + 4, "text-anchor": "end" };
      make("text", attributes, svg).textContent = labels[index];
    });
    make("line", { class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom }, svg);
    const count = Math.max(2, Math.floor((area.right - area.left) / 70));
    for (const tick of linearTicks(low, high, count, true)) {
      if (tick < 0) continue;
      const at = x(tick);
      make("line", { class: "axis", x1: at, x2: at, y1: area.bottom, y2: area.bottom + 4 }, svg);
      const attributes = { x: at, y: area.bottom + 18, "text-anchor": "middle" };
      make("text", attributes, svg).textContent = tick.toLocaleString("en");
    }
    const middle = (area.left + area.right) / 2;
    make("text", { x: middle, y: HEIGHT - 5, "text-anchor": "middle" }, svg).textContent = view.x;
  }

  const shapeOf = (run) => SHAPES[(run + Math.floor(run / data.colors)) % SHAPES.length];

  function drawLine(svg, line, { x, y }, isLog) {
    const xs = xsOf(line);
    const color = colorOf(line);
    const isMarked = line.values.length <= MOST_MARKED_POINTS;
    const has = (index) => index >= 0 && index < xs.length && canDraw(line.values[index], isLog);
    let path = "";
    let marks = "";
    line.values.forEach((value, index) => {
      if (!has(index)) return;
      const [px, py] = [x(xs[index]), y(value)];
      path += `${has(index - 1) ? "L" : "M"}${px.toFixed(1)},${py.toFixed(1)}`;
      // A value between two gaps is no line.
      const isAlone = !has(index - 1) && !has(index + 1);
      if (isMarked || isAlone) marks += shapeOf(line.run)(px, py, isAlone ? 3.5 : 2.5);
    });
    const dense = line.values.length > MOST_SPACED_POINTS ? " dense" : "";
    make("path", { class: `line${dashOf(line.phase)}${dense}`, d: path, stroke: color }, svg);
    if (marks) make("path", { d: marks, fill: color }, svg);
  }

  function drawResumed(svg, { lines, area, x }) {
    data.runs.forEach((run, number) => {
      if (!lines.some((line) => line.run === number)) return;
      const color = hasOneRun ? "var(--warn)" : `var(--run-${number % data.colors})`;
      for (const mark of run.resumed) {
        const at = x(mark[view.x]);
        if (at < area.left || at > area.right) continue;
        const line = make("line",
          { class: "resumed", x1: at, x2: at, y1: area.top, y2: area.bottom, stroke: color }, svg);
        const where = `${run.label} resumed at epoch ${mark.begun}, step ${mark.step}`;
        make("title", {}, line).textContent = where;
        make("path", { d: SHAPES[2](at, area.bottom - 4, 4), fill: color }, svg);
      }
    });
  }

  function drawBest(svg, chart, { lines, area, x, y }) {
    if (chart.isRate) return;
    data.runs.forEach((run, number) => {
      const own = lines.filter((line) => line.run === number);
      const line = own.find((one) => one.phase === "eval") || own[0];
      if (!run.best || !line) return;
      const distances = line.epochs.map((epoch) => Math.abs(epoch - run.best.epoch));
      const index = distances.indexOf(Math.min(...distances));
      // Where an evaluation found it, and the log of this metric does not know it, nothing is drawn.
      if (distances[index] > 0.5 || !canDraw(line.values[index], chart.isLog)) return;
      const [px, py] = [x(xsOf(line)[index]), y(line.values[index])];
      if (chart.title === run.best.metric) {
        make("line", { class: "best-line", x1: px, x2: px, y1: area.top, y2: area.bottom, stroke: colorOf(line) }, svg);
      }
      const ring = make("path", { class: "best-ring", d: SHAPES[0](px, py, 5), stroke: colorOf(line) }, svg);
      make("title", {}, ring).textContent = `${run.label}: best epoch, ${run.best.epoch}`;
    });
  }

  function tellClipped(chart, lines) {
    const count = !chart.isLog ? 0
      : lines.flatMap((line) => line.values).filter((value) => value !== null && value <= 0).length;
    chart.clipped.hidden = !count;
    chart.clipped.textContent = `${count} value${count === 1 ? "" : "s"} of 0 or less not shown`;
  }

  // ---- reading values

  function listen(svg, chart) {
    for (const kind of ["pointermove", "pointerdown"]) {
      svg.addEventListener(kind, (event) => {
        read(chart, nearestX(chart, event.clientX - svg.getBoundingClientRect().left));
      });
    }
    svg.addEventListener("pointerleave", () => read(chart, null));
    svg.addEventListener("blur", () => read(chart, null));
    svg.addEventListener("keydown", (event) => {
      const { xs } = chart.layout;
      const index = xs.indexOf(chart.at);
      const moves = {
        ArrowLeft: index <= 0 ? 0 : index - 1,
        ArrowRight: Math.min(index + 1, xs.length - 1),
        Home: 0,
        End: xs.length - 1,
      };
      if (event.key === "Escape") read(chart, null);
      if (!(event.key in moves)) return;
      event.preventDefault();
      read(chart, xs[moves[event.key]]);
    });
  }

  function nearestX(chart, px) {
    let found = null;
    for (const x of chart.layout.xs) {
      const distance = Math.abs(chart.layout.x(x) - px);
      if (found === null || distance < found.distance) found = { x, distance };
    }
    return found && found.x;
  }

  function read(chart, at) {
    const { cursor, tip, layout, isLog } = chart;
    chart.at = at;
    cursor.replaceChildren();
    tip.hidden = at === null;
    if (at === null) return;
    const px = layout.x(at);
    const { area } = layout;
    make("line", { class: "cursor", x1: px, x2: px, y1: area.top, y2: area.bottom }, cursor);
    tip.replaceChildren();
    const other = view.x === "epoch" ? "step" : "epoch";
    const rows = [];
    for (const line of layout.lines) {
      const index = xsOf(line).lastIndexOf(at);
      if (index < 0) continue;
      const value = line.values[index];
      if (canDraw(value, isLog)) {
        const attributes = { d: shapeOf(line.run)(px, layout.y(value), 4.5), fill: colorOf(line) };
        make("path", attributes, cursor);
      }
      rows.push({ line, value, second: (other === "step" ? line.steps : line.epochs)[index] });
    }
    const seconds = new Set(rows.map((row) => row.second));
    const second = seconds.size === 1 ? `, ${other} ${[...seconds][0].toLocaleString("en")}` : "";
    makeHtml("p", "", `${view.x} ${at.toLocaleString("en")}${second}`, tip);
    for (const { line, value } of rows) {
      const row = makeHtml("p", "", "", tip);
      const name = makeHtml("span", "key", "", row);
      name.append(sample(line), nameOf(line));
      makeHtml("b", "", value === null ? "not finite" : formatNumber(value), row);
    }
    const isRight = px > (area.left + area.right) / 2;
    tip.style.left = isRight ? "auto" : `${px + 12}px`;
    tip.style.right = isRight ? `${chart.box.clientWidth - px + 12}px` : "auto";
  }

  function sample(line, color = colorOf(line)) {
    const svg = make("svg", { width: 22, height: 10, "aria-hidden": "true" });
    make("path", { class: `line${dashOf(line.phase)}`, d: "M0,5H22", stroke: color }, svg);
    make("path", { d: shapeOf(line.run)(11, 5, 3), fill: color }, svg);
    return svg;
  }

  // ---- buttons

  const press = (button, isPressed) => button.setAttribute("aria-pressed", String(isPressed));
  const drawAll = () => charts.forEach(draw);

  function choose(buttons, take) {
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const one of buttons) press(one, one === button);
        take(button.value);
        drawAll();
      });
    }
  }

  function setLog(chart, isLog) {
    chart.isLog = isLog;
    press(chart.button, isLog);
  }

  function hide(buttons, hidden, keyOf) {
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const key = keyOf(button.value);
        if (!hidden.delete(key)) hidden.add(key);
        press(button, !hidden.has(key));
        drawAll();
      });
    }
  }

  const buttonsOf = (name) => [...document.querySelectorAll(`button[name="${name}"]`)];

  document.querySelectorAll(".chart").forEach((figure, index) => {
    const chart = {
      ...data.charts[index],
      box: figure.querySelector(".plot"),
      button: figure.querySelector("button"),
      clipped: figure.querySelector(".clipped"),
      isLog: false,
    };
    charts.push(chart);
    chart.button.addEventListener("click", () => {
      setLog(chart, !chart.isLog);
      draw(chart);
    });
    // Draws it for the first time too.
    let width = null;
    new ResizeObserver(() => {
      if (chart.box.clientWidth === width) return;
      width = chart.box.clientWidth;
      draw(chart);
    }).observe(chart.box);
  });
  choose(buttonsOf("x"), (value) => { view.x = value; });
  choose(buttonsOf("y"), (value) => charts.forEach((chart) => setLog(chart, value === "log")));
  hide(buttonsOf("run"), view.hiddenRuns, Number);
  hide(buttonsOf("phase"), view.hiddenPhases, String);
  document.querySelectorAll("[data-sample]").forEach((place) => {
    const line = { run: Number(place.dataset.run), phase: place.dataset.phase };
    // Of several runs a phase has no colour of its own.
    const isNeutral = place.name === "phase" && !hasOneRun;
    place.prepend(isNeutral ? sample(line, "var(--muted)") : sample(line));
  });
})();
