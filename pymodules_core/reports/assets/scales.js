// Numbers as texts, and axes: where their ticks lie, and where a value does. Knows no document.
"use strict";

function formatNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(3).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(5)));
}

function niceStep(range, count, isWhole) {
  const rough = range / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.75);
  return isWhole ? Math.max(1, Math.round(step)) : step;
}

function linearTicks(low, high, count, isWhole = false) {
  const step = niceStep(high - low, count, isWhole);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) {
    ticks.push(Number((n * step).toPrecision(12)));
  }
  return ticks;
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const factors = last - first > 3 ? [1] : [1, 2, 5];
  const every = Math.ceil((last - first) / 7);
  const ticks = [];
  for (let power = first; power <= last; power += every) {
    for (const factor of factors) ticks.push(Number(`${factor}e${power}`));
  }
  const inside = ticks.filter((tick) => tick >= low * 0.9999 && tick <= high * 1.0001);
  return inside.length > 1 ? inside : linearTicks(low, high, 4).filter((tick) => tick > 0);
}

function makeYScale(values, isLog) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (isLog) [low, high] = [Math.log10(low), Math.log10(high)];
  // Of equal values, and of those that differ by rounding alone.
  const least = Math.max(Math.abs(low), Math.abs(high)) * 1e-9;
  const pad = high - low > least ? (high - low) * 0.06 : isLog ? 0.3 : Math.abs(high) * 0.1 || 1;
  low -= pad;
  high += pad;
  const place = (value) => ((isLog ? Math.log10(value) : value) - low) / (high - low);
  return { place, ticks: isLog ? logTicks(10 ** low, 10 ** high) : linearTicks(low, high, 5) };
}
