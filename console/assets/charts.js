// SPDX-License-Identifier: AGPL-3.0-only
// Draws every <figure data-chart> from the JSON in it with uPlot; the table in it stays for those who do not see the drawing.

const tones = ['--line-1', '--line-2', '--line-3', '--line-4'];

// times are the axis' words by the distance of its ticks in seconds: UTC and 24 hours, as everywhere on the page.
const times = [
  [31536000, '{YYYY}', null, null, null, null, null, null, 1],
  [2419200, '{MMM}', '\n{YYYY}', null, null, null, null, null, 1],
  [86400, '{DD} {MMM}', '\n{YYYY}', null, null, null, null, null, 1],
  [60, '{HH}:{mm}', '\n{YYYY}-{MM}-{DD}', null, '\n{MM}-{DD}', null, null, null, 1],
  [1, '{HH}:{mm}:{ss}', '\n{YYYY}-{MM}-{DD}', null, '\n{MM}-{DD}', null, null, null, 1],
  [0.001, '{ss}.{fff}', '\n{YYYY}-{MM}-{DD} {HH}:{mm}', null, null, null, '\n{HH}:{mm}', null, 1],
];

// colour asks for the computed colour: a canvas cannot read light-dark().
function colour(figure, name) {
  const probe = document.createElement('i');
  probe.className = 'probe ' + name.slice(2);
  figure.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

// span keeps at least a minute in sight, so that a young series is not drawn over years.
function span(u, from, to) {
  const x = u.data[0];
  if (x[0] === x[x.length - 1]) from = to = x[0];
  const lack = 60 - (to - from);
  return lack > 0 ? [from - lack / 2, to + lack / 2] : [from, to];
}

// Numbers of things stand on zero, and their axis knows no halves.
const ground = (_, low, high) => [0, Math.max(high, 1) * 1.1];
const wholes = Array.from({ length: 30 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));

// room leaves air above and below the lines; what never falls below zero stands on it.
function room(_, low, high) {
  if (low == null) return [0, 1];
  const air = (high - low || Math.abs(high) || 1) * 0.12;
  const floor = low >= 0 && low < high * 0.6 ? 0 : low - air;
  return [floor, high + air];
}

// flags draws what happened when: a dashed line with its word above the plot, one line higher where two would meet.
function flags(u, marks, ink, font) {
  const { ctx, bbox } = u, scale = devicePixelRatio;
  const ends = []; // of the words on each line
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = ink;
  ctx.lineWidth = scale;
  ctx.font = font.replace(/^\d+px/, `${11 * scale}px`);
  ctx.textBaseline = 'bottom';
  ctx.textAlign = 'left';
  for (const { at, word } of marks) {
    const x = u.valToPos(at, 'x', true), wide = ctx.measureText(word).width + 10 * scale;
    const left = x + wide > bbox.left + bbox.width ? x - wide + 10 * scale : x;
    let line = ends.findIndex((end) => end <= left);
    if (line < 0) line = ends.length;
    ends[line] = left + wide;
    ctx.setLineDash([3 * scale, 3 * scale]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(word, left, bbox.top - (3 + line % 2 * 14) * scale);
  }
  ctx.restore();
}

function draw(figure) {
  const plot = figure.querySelector('.plot');
  const { names, axes, data: lines, low, high, from, to, marks, counts } = JSON.parse(figure.querySelector('script').textContent);
  if (!window.uPlot || !lines[0].length) return;
  const data = low ? [...lines, low, high] : lines; // the band lies between the last two
  const ink = colour(figure, '--ink-soft');
  const grid = { stroke: colour(figure, '--rule'), width: 1 };
  const font = '12px ' + getComputedStyle(figure).fontFamily;
  const size = () => ({ width: plot.clientWidth, height: low ? 180 : 220 });
  plot.replaceChildren();
  figure.chart?.destroy();
  const sides = [...new Set(axes)].sort(); // 0 is the left axis, 1 the right one
  const last = data[0].length - 1;
  const tone = (i) => colour(figure, tones[i % tones.length]);
  const alone = (side) => axes.filter((a) => a === side).length === 1 && sides.length > 1; // an axis of one line has its colour
  figure.chart = new uPlot({
    ...size(),
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC'),
    cursor: {
      points: { size: 7 }, y: false, drag: { x: true, y: false, setScale: false }, sync: from ? { key: 'view', setSeries: false } : undefined,
      bind: from ? { dblclick: () => () => follow('-') } : undefined,
    },
    padding: marks ? [34, null, null, null] : undefined,
    legend: { show: names.length > 1 || !!low },
    scales: { x: { time: true, range: from ? [from, to] : span }, ...Object.fromEntries(sides.map((side) => ['y' + side, { range: counts ? ground : room }])) },
    // Where nothing is pointed at, the legend reads the newest values.
    hooks: {
      setSelect: [(u) => {
        if (!from || u.select.width < 6) return;
        zoom(figure, u.posToVal(u.select.left, 'x'), u.posToVal(u.select.left + u.select.width, 'x'));
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      }],
      draw: marks ? [(u) => flags(u, marks, ink, font)] : [],
      ready: [(u) => u.setLegend({ idx: last })], setLegend: [(u) => { if (u.legend.idx == null) u.setLegend({ idx: last }); }],
    },
    axes: [
      { stroke: ink, font, values: times, space: 84, grid: { show: false }, ticks: { ...grid, size: 4 } },
      ...sides.map((side) => ({
        scale: 'y' + side, side: side ? 1 : 3, font, ticks: { show: false }, size: 52, incrs: counts ? wholes : undefined, grid: side ? { show: false } : grid,
        stroke: alone(side) ? tone(axes.indexOf(side)) : ink,
      })),
    ],
    bands: low ? [{ series: [names.length + 2, names.length + 1], fill: colour(figure, '--line-band') }] : undefined,
    series: [{ label: 'UTC', value: '{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}' }, ...names.map((label, i) => ({
      label: low ? 'mean' : label, scale: 'y' + axes[i], width: 1.75, stroke: tone(i), points: { show: data[0].length < 60, size: 5 }, spanGaps: false,
      fill: names.length === 1 && !low ? colour(figure, '--line-fill') : undefined,
    })), ...(low ? ['min', 'max'] : []).map((label) => ({ label, scale: 'y0', width: 0, points: { show: false }, spanGaps: false }))],
  }, data, plot);
  figure.resize?.disconnect();
  figure.resize = new ResizeObserver(() => figure.chart.setSize(size()));
  figure.resize.observe(plot);
}

function drawAll(root) {
  for (const figure of root.querySelectorAll('figure[data-chart]')) {
    const json = figure.querySelector('script').textContent;
    if (figure.drawn === json) continue;
    figure.drawn = json;
    draw(figure);
  }
}

// read fetches a page of this console and returns it, or nothing if that failed: what stands stays.
async function read(url) {
  try {
    const answer = await fetch(url, { headers: { Accept: 'text/html' } });
    if (answer.ok) return new DOMParser().parseFromString(await answer.text(), 'text/html');
  } catch { /* the next beat tries again */ }
}

// take puts the content of the element with the same id of another page into this one.
function take(box, page) {
  const other = page?.getElementById(box.id);
  if (!other) return false;
  const open = [...box.querySelectorAll('figure details[open]')].map((d) => d.closest('figure').id);
  for (const figure of box.querySelectorAll('figure[data-chart]')) { figure.resize?.disconnect(); figure.chart?.destroy(); }
  for (const { name, value } of other.attributes) box.setAttribute(name, value);
  if (!other.hasAttribute('data-refresh')) box.removeAttribute('data-refresh');
  box.replaceChildren(...other.childNodes);
  for (const id of open) document.getElementById(id)?.querySelector('details')?.setAttribute('open', '');
  drawAll(box);
  return true;
}

// A view (data-view) is a stretch of time that links, dragging and keys move without loading the page anew.
const view = () => document.querySelector('[data-view]');
let asked; // the address of the view that was asked for last

async function show(url, push = true) {
  asked = url;
  const page = await read(url);
  if (asked !== url) return; // a later wish overtook it
  if (!page?.querySelector('[data-view]')) { location.assign(url); return; }
  const words = view().querySelector('details.picks')?.open;
  take(view(), page);
  if (words) view().querySelector('details.picks').open = true;
  if (push && url !== location.href) history.pushState(null, '', url); // asked for twice, it is one step of the way back
}

function zoom(figure, from, to) {
  const url = new URL(figure.closest('[data-view]').dataset.view, location.href);
  const middle = (from + to) / 2, half = Math.max((to - from) / 2, 0.75);
  url.searchParams.delete('range');
  url.searchParams.set('from', new Date((middle - half) * 1000).toISOString());
  url.searchParams.set('to', new Date((middle + half) * 1000).toISOString());
  show(url.href);
}

// follow takes the link that a key stands for.
function follow(key) {
  const link = view()?.querySelector(`a[data-key="${CSS.escape(key)}"]`);
  if (link) show(link.href);
  return !!link;
}

document.addEventListener('click', (event) => {
  const link = event.target.closest?.('[data-view] nav a');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  const name = link.textContent;
  show(link.href).then(() => [...view().querySelectorAll('nav a')].find((a) => a.textContent === name)?.focus());
});
document.addEventListener('keydown', (event) => {
  if (!view() || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (follow(event.key)) event.preventDefault();
});
addEventListener('popstate', () => { if (view()) show(location.href, false); });

// A beat of a live stream says that there is something new: what may refresh itself does, at most every three seconds.
let fresh = 0, held = false; // held: somebody is dragging
for (const [kind, down] of [['pointerdown', true], ['mousedown', true], ['pointerup', false], ['mouseup', false], ['pointercancel', false]]) {
  addEventListener(kind, () => { held = down; }, true);
}
async function refresh() {
  if (document.hidden || held || Date.now() - fresh < 3000) return;
  fresh = Date.now();
  const boxes = [...document.querySelectorAll('[data-refresh]')];
  const url = document.querySelector('[data-view]')?.dataset.view ?? location.href;
  const page = boxes.length ? await read(url) : undefined;
  for (const box of boxes) if (!held && box.isConnected && box.hasAttribute('data-refresh')) take(box, page);
}

drawAll(document);
document.addEventListener('htmx:after:swap', () => {
  drawAll(document);
  if (document.getElementById('telemetry-beat')?.textContent) refresh();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  for (const figure of document.querySelectorAll('figure[data-chart]')) draw(figure);
});
